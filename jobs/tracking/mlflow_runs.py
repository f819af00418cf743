"""Write runs and metrics to MLflow. Registered models are in mlflow_registry.py; no other file imports mlflow.

Every function talks to the tracking server and raises when it does not answer. After such an error, or after a kill, a
call may be repeated and leaves nothing twice: see jobs/tracking/delivery.py.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from files.addresses import display_address, without_secrets
from files.durable import durable_file
from files.environment import QUIET_ENVIRONMENT
from files.errors import UserError
from files.locks import lock_file
from jobs.tracking.address import AddressError, artifact_folder, database_file, tracking_uri

os.environ.update(  # before the import of mlflow, which reads some of them only then
    {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # unpickling a model would run any code that it holds
        # MLflow would retry for four minutes, and a repeated request whose answer was lost could make a second run.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # MLFLOW_TRACKING_URI may name a folder
        "GIT_PYTHON_REFRESH": "quiet",  # its git library warns on a machine without git
    }
    | QUIET_ENVIRONMENT
    | os.environ  # a variable that the user has set stays
)
import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from jobs.tracking.model_files import ModelError
from jobs.tracking.staging import TrackedDataset, flatten

logging.getLogger("mlflow").setLevel(logging.ERROR)  # it reports every table that it makes
logging.getLogger("alembic").setLevel(logging.ERROR)

EXPERIMENT = "inpaint-foundry"
CODE_FOLDER = "code"
"""Folder of a run's artifacts that holds the archive of its code."""
Point = tuple[str, float, int, float]
"""One value of a metric: key, value, step, Unix time in seconds."""


class ExperimentGoneError(UserError):
    """The experiment of all runs, or the folder of its files, is gone. The message says how to bring it back."""


def check_server() -> None:
    """Raise MlflowException when the tracking server does not answer."""
    open_client().search_experiments(max_results=1)


def reason(error: Exception) -> str:
    """Return an error of the tracking server in one line, without the secrets that its address may hold."""
    first = next(iter(str(error).strip().splitlines()), "")
    if re.match(r"API request to .* failed with (timeout )?exception", first):
        first = f"{tracking_uri()} does not answer"
    elif not isinstance(error, MlflowException | UserError):
        first = f"{type(error).__name__}: {first}"
    return without_secrets(first)


def open_run(
    name: str,
    *,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[TrackedDataset],
    files: Mapping[str, str],
    training: str | None = None,
    started: float | None = None,
) -> str:
    """Start a run, or continue the one that was opened before for the same training. Returns the id of the run.

    parameters: a tree of values; the run has them as flat texts.
    datasets: columns that the run reads.
    files: path below the run's artifacts -> text.
    training: an id that no other training has, stored as a tag; None always starts a run.
    started: Unix time, in seconds; None is now.
    """
    client = open_client()
    experiment = find_experiment(client)
    run = _run_of(client, experiment, training) if training else None
    if run is None:
        tags = {**tags, **({"training": training} if training else {})}
        run = client.create_run(experiment, start_time=_milliseconds(started), tags=tags, run_name=name)
    run_id = run.info.run_id
    if run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    flat = [Param(key, value) for key, value in flatten(parameters).items() if key not in run.data.params]
    for start in range(0, len(flat), 100):
        client.log_batch(run_id, params=flat[start : start + 100])
    client.log_inputs(run_id, [_dataset_input(dataset) for dataset in datasets])
    for path, text in files.items():
        client.log_text(run_id, text, path)
    return run_id


def close_run(run_id: str, status: str = "FINISHED", *, ended: float | None = None) -> None:
    """Set the status of a run: FINISHED, FAILED, or SCHEDULED, that is, stopped and to be continued.

    ended: Unix time, in seconds; None is now. A SCHEDULED run has no end.
    """
    if status == "SCHEDULED":
        open_client().update_run(run_id, status=status)
    else:
        open_client().set_terminated(run_id, status, _milliseconds(ended))


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Log the metrics of a finished run, such as its evaluation, at one step and the present time."""
    log_points(run_id, [(key, value, step, time.time()) for key, value in metrics.items()])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, in place of those of the same names."""
    open_client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def device_hours(run_id: str) -> dict[str, float]:
    """Return the device-hours that the run of a finished training has, see `jobs.runs.events.device_hours`."""
    metrics = open_client().get_run(run_id).data.metrics
    return {name: metrics[name] for name in ("gpu_hours", "cpu_hours") if name in metrics}


def run_seconds(run_id: str) -> float | None:
    """Return how long a run took, waits between its segments included; None while it has no end."""
    info = open_client().get_run(run_id).info
    return None if info.end_time is None else (info.end_time - info.start_time) / 1000


def log_points(run_id: str, points: Sequence[Point]) -> None:
    """Log points in order. Equal points are stored once."""
    metrics = [Metric(key, value, _milliseconds(seconds), step) for key, value, step, seconds in points]
    client = open_client()
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def fetch_record(training: str, folder: Path) -> tuple[Path, Path, Mapping[str, str]]:
    """Fetch what a training was started with.

    training: its id, see `open_run`.
    folder: where the files are written.
    Returns the files of its parameters and of its code, and the tags of its run.
    Raises ModelError if the server knows no such training.
    """
    client = open_client()
    run = _run_of(client, find_experiment(client), training)
    if run is None:
        raise ModelError(f"{EXPERIMENT} has no run of the training {training!r}; check MLFLOW_TRACKING_URI")
    return *fetch_run_files(run.info.run_id, folder), run.data.tags


def last_step(run_id: str, key: str) -> int:
    """Return the highest step of a metric on the server; -1 before the first."""
    return max((metric.step for metric in open_client().get_metric_history(run_id, key)), default=-1)


def log_text(run_id: str, text: str, path: str) -> None:
    """Write a file below a run's artifacts."""
    open_client().log_text(run_id, text, path)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Copy a file to a run's artifacts."""
    open_client().log_artifact(run_id, str(path), folder)


def log_files(run_id: str, paths: Iterable[Path], folder: str) -> dict[Path, str]:
    """Copy files to a folder of a run's artifacts, except those that are there with their whole size.

    Returns path -> problem of each file that cannot be read or has a name that is no text. The others are copied.
    """
    client = open_client()
    uploaded = {(Path(entry.path).name, entry.file_size) for entry in client.list_artifacts(run_id, folder)}
    problems = {}
    for path in paths:
        if problem := _unfit(path):
            problems[path] = problem
        elif (path.name, path.stat().st_size) not in uploaded:
            client.log_artifact(run_id, str(path), folder)
    return problems


def _unfit(path: Path) -> str:
    """Return why a file cannot be copied to a server, or ""."""
    try:
        path.name.encode()
        with path.open("rb") as file:
            file.read(1)
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    except OSError as error:
        return error.strerror
    return ""


def fetch_file(run_id: str, path: str, folder: Path) -> Path:
    """Copy a file of a run to a folder. Returns where it is.

    path: below the run's artifacts.
    """
    return Path(open_client().download_artifacts(run_id, path, str(folder)))


def fetch_run_files(run_id: str, folder: Path) -> tuple[Path, Path]:
    """Copy the files of a run's parameters and code to a folder, unchecked. Returns where they are."""
    return fetch_file(run_id, "params.json", folder), fetch_file(run_id, f"{CODE_FOLDER}/code.zip", folder)


def _run_of(client: mlflow.MlflowClient, experiment: str, training: str) -> Run | None:
    """Return the run of a training, or None.

    A request to create the run, whose answer was lost, may have been repeated. Of several runs one is kept.
    """
    runs = client.search_runs([experiment], f"tags.training = '{training}'")
    runs = sorted(runs, key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))
    for run in runs[1:]:
        client.delete_run(run.info.run_id)
    return runs[0] if runs else None


def open_client() -> mlflow.MlflowClient:
    """Return a client of the tracking server. A database on this disk is made first if there is none.

    Raises AddressError if it cannot be made.
    """
    uri = tracking_uri()
    if path := database_file(uri):
        _make_database(path)
    return mlflow.MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """Make an empty tracking database, complete or not at all. Its folder is made, too.

    MLflow creates its tables in many steps and cannot continue when it is killed between them. They are created in
    another file, which is copied and then gets the name. The lock lets one process at a time do this.
    Raises AddressError if the folder cannot be made or written to.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            lock_file(lock)
            if not path.exists():
                _fill_database(path)
    except OSError as error:
        raise AddressError(
            f"the tracking database {path} cannot be made ({error.strerror}); "
            "set MLFLOW_TRACKING_URI to a place that can be written to"
        ) from error


def _fill_database(path: Path) -> None:
    """Make MLflow's tables in a file of the system's temporary folder, and copy it to a path."""
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        made = Path(folder) / "mlflow.db"
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments(max_results=1)
        with durable_file(path) as file, made.open("rb") as empty:
            shutil.copyfileobj(empty, file)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(1000 * seconds)


def find_experiment(client: mlflow.MlflowClient) -> str:
    """Return the id of the experiment of all runs, which is made if there is none.

    Raises ExperimentGoneError if it was deleted or if its folder of files is gone.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        folder = artifact_folder(tracking_uri())
        made = client.create_experiment(EXPERIMENT, artifact_location=folder.as_uri() if folder else None)
        experiment = client.get_experiment(made)
    if experiment.lifecycle_stage != "active":
        raise ExperimentGoneError(
            f"experiment {EXPERIMENT} of {display_address(tracking_uri())} was deleted; bring it back with: "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    _check_artifacts(client, experiment)
    return experiment.experiment_id


def _check_artifacts(client: mlflow.MlflowClient, experiment: Experiment) -> None:
    """Make the folder of a new experiment's files. Raises ExperimentGoneError if that of an older one is gone.

    MLflow would make the folder again, and the files of the earlier runs would be missing without a word. Only a
    folder of this machine is checked.
    """
    folder = _local_path(experiment.artifact_location)
    if folder is None or folder.is_dir():
        return
    if client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1):
        raise ExperimentGoneError(
            f"experiment {EXPERIMENT} of {display_address(tracking_uri())} keeps its files in {folder}, which is gone; "
            f"bring the folder back, or give up its files with: mkdir -p {shlex.quote(str(folder))}"
        )
    folder.mkdir(parents=True)


def _local_path(location: str) -> Path | None:
    """Return the path of a folder of this machine, or None for an address elsewhere."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None


def _dataset_input(dataset: TrackedDataset) -> DatasetInput:
    profile = json.dumps({"num_records": dataset.records})
    return DatasetInput(
        # MLflow keeps 36 characters of a digest; the tag has all of them.
        Dataset(dataset.name, dataset.digest[:36], "local", json.dumps({"uri": dataset.source}), profile=profile),
        [InputTag("mlflow.data.context", dataset.context), InputTag("manifest_sha256", dataset.digest)],
    )
