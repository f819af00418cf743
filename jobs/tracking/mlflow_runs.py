"""Write runs, metrics and registered models to MLflow: the only file that imports mlflow.

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
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from files.addresses import display_address, without_secrets
from files.durable import durable_file
from files.environment import QUIET_ENVIRONMENT
from files.errors import UserError
from files.locks import lock_file
from jobs.runs.history import Version, add_version, set_alias
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
import numpy as np
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from jobs.tracking.model_files import Fill, ModelError, check_files, find_loader, open_model, write_digests
from jobs.tracking.sketches import SKETCH
from jobs.tracking.staging import TrackedDataset, flatten

logging.getLogger("mlflow").setLevel(logging.ERROR)  # it reports every table that it makes
logging.getLogger("alembic").setLevel(logging.ERROR)

EXPERIMENT = "inpaint-foundry"
FILES_TAG = "files_sha256"
"""Tag of a registered version: the digest of the list of its files' digests."""
CODE_FOLDER = "code"
"""Folder of a run's artifacts that holds the archive of its code."""
Point = tuple[str, float, int, float]
"""One value of a metric: key, value, step, Unix time in seconds."""


class ExperimentGoneError(UserError):
    """The experiment of all runs, or the folder of its files, is gone. The message says how to bring it back."""


def check_server() -> None:
    """Raise MlflowException when the tracking server does not answer."""
    _client().search_experiments(max_results=1)


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
    client = _client()
    experiment = _experiment(client)
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
        _client().update_run(run_id, status=status)
    else:
        _client().set_terminated(run_id, status, _milliseconds(ended))


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Log the metrics of a finished run, such as its evaluation, at one step and the present time."""
    log_points(run_id, [(key, value, step, time.time()) for key, value in metrics.items()])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, in place of those of the same names."""
    _client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def run_of_version(name: str, tags: Mapping[str, str]) -> str | None:
    """Return the id of the run of `find_tagged_version`, or None."""
    version = find_tagged_version(name, tags)
    return None if version is None else version.run_id


def find_tagged_version(name: str, tags: Mapping[str, str]) -> Version | None:
    """Return the newest registered version that has the tags, or None. name: of the registered model."""
    conditions = [f"name = '{name}'", *(f"tags.{key} = '{value}'" for key, value in tags.items())]
    versions = _client().search_model_versions(" and ".join(conditions))
    newest = max(versions, key=lambda version: int(version.version), default=None)
    if newest is None:
        return None
    return Version(name=name, version=str(newest.version), run_id=newest.run_id, tags=newest.tags)


def tag_version(version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a registered version, in place of those of the same names."""
    for key, value in tags.items():
        _client().set_model_version_tag(version.name, version.version, key, value)


def run_seconds(run_id: str) -> float | None:
    """Return how long a run took, waits between its segments included; None while it has no end."""
    info = _client().get_run(run_id).info
    return None if info.end_time is None else (info.end_time - info.start_time) / 1000


def find_version(name: str, version: str) -> Version:
    """Return a registered version. version: a number, or an alias. Raises ModelError if there is none."""
    client = _client()
    try:
        find = client.get_model_version if version.isdigit() else client.get_model_version_by_alias
        found = find(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelError(f"{name}@{version} is not found at the tracking server") from error
    return Version(name=name, version=str(found.version), run_id=found.run_id, tags=found.tags)


def log_points(run_id: str, points: Sequence[Point]) -> None:
    """Log points in order. Equal points are stored once."""
    metrics = [Metric(key, value, _milliseconds(seconds), step) for key, value, step, seconds in points]
    client = _client()
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def fetch_record(training: str, folder: Path) -> tuple[Path, Path, Mapping[str, str]]:
    """Fetch what a training was started with.

    training: its id, see `open_run`.
    folder: where the files are written.
    Returns the files of its parameters and of its code, and the tags of its run.
    Raises ModelError if the server knows no such training.
    """
    client = _client()
    run = _run_of(client, _experiment(client), training)
    if run is None:
        raise ModelError(f"{EXPERIMENT} has no run of the training {training!r}; check MLFLOW_TRACKING_URI")
    return *fetch_run_files(run.info.run_id, folder), run.data.tags


def last_step(run_id: str, key: str) -> int:
    """Return the highest step of a metric on the server; -1 before the first."""
    return max((metric.step for metric in _client().get_metric_history(run_id, key)), default=-1)


def log_text(run_id: str, text: str, path: str) -> None:
    """Write a file below a run's artifacts."""
    _client().log_text(run_id, text, path)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Copy a file to a run's artifacts."""
    _client().log_artifact(run_id, str(path), folder)


def log_files(run_id: str, paths: Iterable[Path], folder: str) -> dict[Path, str]:
    """Copy files to a folder of a run's artifacts, except those that are there with their whole size.

    Returns path -> problem of each file that cannot be read or has a name that is no text. The others are copied.
    """
    client = _client()
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


def register_model(
    run_id: str,
    name: str,
    *,
    files: Mapping[str, Path],
    tags: Mapping[str, str],
    code: Path,
    requirements: Sequence[str],
) -> str:
    """Register a trained generator, once for each run, and give it the alias `candidate`. Returns its version.

    The model is code and data, without pickle. It takes and returns 8-bit images. The tag FILES_TAG of the version has
    the digest with which `load_model` checks every file.

    name: of the registered model.
    files: "model" -> folder of weights and receipt.
    tags: of the version.
    code: folder with one private package, see jobs/tracking/private_package.py.
    requirements: pinned packages, such as "numpy==2.0.0".
    Raises ModelError if there is no private package in `code`.
    """
    client = _client()
    version = _version_of(client, name, run_id)
    if version is None:
        with tempfile.TemporaryDirectory(dir=code.parent) as folder:
            model = Path(folder) / "model"
            _save_model(model, files["model"], code, requirements)
            version = _create_version(client, run_id, name, model, tags)
    client.set_registered_model_alias(name, "candidate", version)
    add_version(Version(name=name, version=version, run_id=run_id, tags=client.get_model_version(name, version).tags))
    set_alias(name, "candidate", version)
    return version


@dataclass(frozen=True)
class FetchedModel:
    """The files of a registered version on this disk, checked.

    version: its number.
    weights_sha256: digest of its weights.
    follows_lines: whether it takes a sketch.
    size: `ingest.size` of its training, in pixels; None if its run does not say it.
    open: loads it as `load_model` does; can be pickled.
    """

    version: str
    weights_sha256: str
    follows_lines: bool
    size: int | None
    open: Callable[[], Fill]


def fetch_model(name: str, version: str, folder: Path) -> FetchedModel:
    """Copy a registered version to a folder.

    name, version: those of `load_model`.
    folder: keeps the files for as long as the model is used.
    Raises ModelError if there is no such version, or if a file has been changed.
    """
    try:
        model, found = _download(name, version, folder)
        described = mlflow.models.Model.load(str(model))
        pyfunc = described.flavors[mlflow.pyfunc.FLAVOR_NAME]
        size = _training_size(found.run_id, folder)
    except (MlflowException, OSError, UserError) as error:
        raise ModelError(f"{name} {version} cannot be loaded: {reason(error)}") from error
    code, data = (model / pyfunc[key] for key in (mlflow.pyfunc.CODE, mlflow.pyfunc.DATA))
    opener = partial(open_model, loader=pyfunc[mlflow.pyfunc.MAIN], code=code, data=data)
    parameters = described.signature and described.signature.params
    return FetchedModel(
        version=found.version,
        weights_sha256=found.tags.get("weights_sha256", ""),
        follows_lines=any(parameter.name == SKETCH for parameter in parameters or ()),
        size=size,
        open=opener,
    )


def _training_size(run_id: str, folder: Path) -> int | None:
    """Return `ingest.size` of the parameters of a run; None if they are gone. folder: for their file."""
    try:
        path = _client().download_artifacts(run_id, "params.json", str(folder))
        return json.loads(Path(path).read_bytes())["ingest"]["size"]
    except (MlflowException, OSError, KeyError, ValueError):
        return None


def load_model(name: str, version: str) -> Fill:
    """Load a registered generator as a function of images, masks and a sketch; see `jobs.tracking.model_files.Fill`.

    Every file is compared with the digest in the version's tag before any code of it is imported.

    The function returns the filled image, uint8 (N, H, W, 3), and raises UserError for an image or mask that the paper
    cannot take.
    name: of the registered model.
    version: a number, or an alias such as "candidate".
    Raises ModelError if there is no such version, if a file has been changed, or if it cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="inpaint-") as folder:
        return open_fetched(fetch_model(name, version, Path(folder)), name, version)


def open_fetched(model: FetchedModel, name: str, version: str) -> Fill:
    """Load a fetched model. name, version: for the message of the ModelError if it cannot be loaded."""
    try:
        return model.open()
    except (MlflowException, ImportError, OSError, UserError) as error:
        raise ModelError(f"{name} {version} cannot be loaded: {reason(error)}") from error


def _download(name: str, version: str, folder: Path) -> tuple[Path, Version]:
    """Copy the files of a registered version to a folder and check them. Returns where they are, and the version."""
    found = find_version(name, version)
    model = fetch_version(found, folder)
    check_files(model, found.tags[FILES_TAG])
    return model, found


def fetch_version(version: Version, folder: Path) -> Path:
    """Copy the files of a registered version to a folder, unchecked. Returns where they are.

    Raises ModelError for a version whose files cannot be checked.
    """
    if FILES_TAG not in version.tags:
        raise ModelError(f"it was registered without the tag {FILES_TAG}, so its files cannot be checked; train again")
    mlflow.set_tracking_uri(tracking_uri())
    source = _client().get_model_version_download_uri(version.name, version.version)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder)))


def fetch_run_files(run_id: str, folder: Path) -> tuple[Path, Path]:
    """Copy the files of a run's parameters and code to a folder, unchecked. Returns where they are."""
    parameters, code = (
        Path(_client().download_artifacts(run_id, name, str(folder)))
        for name in ("params.json", f"{CODE_FOLDER}/code.zip")
    )
    return parameters, code


def list_registered() -> list[Version]:
    """Return all registered versions of this project's models, sorted by name and number."""
    found = _client().search_model_versions("name LIKE 'inpaint-%'")
    versions = (Version(name=v.name, version=str(v.version), run_id=v.run_id, tags=v.tags) for v in found)
    return sorted(versions, key=lambda version: (version.name, int(version.version)))


def _save_model(folder: Path, weights: Path, code: Path, requirements: Sequence[str]) -> None:
    """Write the files of a model as MLflow loads them: see `mlflow.pyfunc.load_model`."""
    from jobs.runs.receipt import read_receipt  # here, since it imports OpenCV

    follows_lines = read_receipt(weights).edges is not None
    image, mask = (TensorSpec(np.dtype(np.uint8), (-1, -1, -1, channels)) for channels in (3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the input example, which a signature makes needless
        mlflow.pyfunc.save_model(
            folder,
            loader_module=find_loader(code),
            data_path=str(weights),
            code_paths=[str(path) for path in sorted(code.iterdir())],
            signature=ModelSignature(
                inputs=Schema(
                    [TensorSpec(image.type, image.shape, "image"), TensorSpec(mask.type, mask.shape, "mask")]
                ),
                outputs=Schema([image]),
                params=ParamSchema([ParamSpec(SKETCH, "string", "")]) if follows_lines else None,
            ),
            pip_requirements=list(requirements),
        )


def _create_version(client: mlflow.MlflowClient, run_id: str, name: str, folder: Path, tags: Mapping[str, str]) -> str:
    """Upload the files of a model and create its version together with all tags, last of all."""
    experiment = _experiment(client)
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)  # of a registration that was killed
    sha256 = write_digests(folder)
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    mlflow.set_tracking_uri(tracking_uri())  # the registry asks it for the place of the files
    version = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags={**tags, FILES_TAG: sha256},
        model_id=model.model_id,
    )
    return str(version.version)


def _version_of(client: mlflow.MlflowClient, name: str, run_id: str) -> str | None:
    """Return the registered version that came from a run, or None."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return min((str(version.version) for version in versions), key=int, default=None)


def _run_of(client: mlflow.MlflowClient, experiment: str, training: str) -> Run | None:
    """Return the run of a training, or None.

    A request to create the run, whose answer was lost, may have been repeated. Of several runs one is kept.
    """
    runs = client.search_runs([experiment], f"tags.training = '{training}'")
    runs = sorted(runs, key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))
    for run in runs[1:]:
        client.delete_run(run.info.run_id)
    return runs[0] if runs else None


def _client() -> mlflow.MlflowClient:
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


def _experiment(client: mlflow.MlflowClient) -> str:
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
