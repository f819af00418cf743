"""Runs, figures and registered models in MLflow: the only file that imports mlflow.

The stage opens the run; training writes events to disk; a courier in the stage's process carries them to the tracking
server, in order and once, whenever it answers. Training never waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # it would block four minutes on a dead server
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.types import Schema, TensorSpec

from jobs.events import Event, read_events

log = logging.getLogger(__name__)
logging.getLogger("mlflow").setLevel(logging.ERROR)  # it reports every table it makes
logging.getLogger("alembic").setLevel(logging.ERROR)

EXPERIMENT = "inpaint-foundry"
ROOT = Path(__file__).resolve().parent.parent


class ModelError(ValueError):
    """There is no such registered model, or it cannot be loaded."""


@dataclass(frozen=True, kw_only=True)
class TrackedDataset:
    """What a run read: a split's name, the digest of its manifest, where it lies, and how many records it has."""

    name: str
    digest: str
    source: str
    records: int
    context: str


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite database in this checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT / 'mlflow.db'}"


def open_run(
    name: str,
    *,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[TrackedDataset],
    files: Mapping[str, str],
    resume: str | None = None,
) -> str:
    """Start a run, or take up the one named by `resume`, and return its id.

    files: path below the run's artifacts -> text. Raises MlflowException when the tracking server refuses.
    """
    client = _client()
    if resume:
        client.update_run(resume, status="RUNNING")
        return resume
    run = client.create_run(_experiment(client), run_name=name, tags=dict(tags))
    run_id = run.info.run_id
    flat = [Param(key, str(value)[:6000]) for key, value in _flatten(parameters)]
    for start in range(0, len(flat), 100):
        client.log_batch(run_id, params=flat[start : start + 100])
    client.log_inputs(run_id, [_dataset_input(dataset) for dataset in datasets])
    for path, text in files.items():
        client.log_text(run_id, text, path)
    return run_id


def close_run(run_id: str, *, failed: bool = False) -> None:
    """Mark a run as finished or failed."""
    _client().set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED if failed else RunStatus.FINISHED))


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Log figures of a finished run, such as its evaluation."""
    _client().log_batch(run_id, metrics=[Metric(key, value, _now(), step) for key, value in metrics.items()])


def log_file(run_id: str, path: Path, folder: str) -> None:
    """Copy a file to a run's artifacts."""
    _client().log_artifact(run_id, str(path), folder)


class Courier:
    """Carries events from a training's storage to its run, in a thread; `with Courier(...)` delivers what is left.

    on_event is called in that thread with every event as it is found, delivered or not.
    What the server already has is not sent again, so a killed courier repeats nothing.
    """

    def __init__(self, run_id: str, storage: Path, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self.run_id = run_id
        self.storage = storage
        self.on_event = on_event
        self._sent: dict[str, set[int]] = {}
        self._pictures: set[str] = set()
        self._offset = 0
        self._unsent: list[Event] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Courier:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        if self._unsent:
            log.warning(
                "%d events of run %s are not delivered; they wait in %s", len(self._unsent), self.run_id, self.storage
            )

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._carry()
        self._carry()

    def _carry(self) -> None:
        for event, offset in read_events(self.storage / "events.jsonl", offset=self._offset):
            self._offset = offset
            self._unsent.append(event)
            self.on_event(event)
        try:
            self._send()
        except MlflowException as error:
            log.warning("the tracking server does not answer (%s); training goes on", error)

    def _send(self) -> None:
        client = _client()
        metrics = [
            Metric(key, value, _now(), event.step)
            for event in self._unsent
            for key, value in {**event.losses, **{f"speed/{k}": v for k, v in event.speed.items()}}.items()
            if event.step not in self._steps(client, key)
        ]
        for start in range(0, len(metrics), 1000):
            some = metrics[start : start + 1000]
            client.log_batch(self.run_id, metrics=some)
            for metric in some:
                self._sent[metric.key].add(metric.step)
        self._unsent.clear()
        for picture in sorted((self.storage / "samples").glob("step-*.png")):
            if picture.name not in self._pictures:
                client.log_artifact(self.run_id, str(picture), "samples")
                self._pictures.add(picture.name)

    def _steps(self, client: mlflow.MlflowClient, key: str) -> set[int]:
        """Steps of a metric that the server has."""
        if key not in self._sent:
            self._sent[key] = {metric.step for metric in client.get_metric_history(self.run_id, key)}
        return self._sent[key]


def register_model(
    run_id: str,
    name: str,
    *,
    files: Mapping[str, Path],
    tags: Mapping[str, str],
    code: Sequence[str],
    requirements: Sequence[str],
) -> str:
    """Register a trained generator and return its version.

    The model is code and data, without pickle: the packages named in `code` (folders of this checkout), `files` by
    name, and `jobs/registered_model.py`, which puts them together. It takes and gives 8-bit images.
    """
    signature = ModelSignature(
        inputs=Schema(
            [
                TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), "image"),
                TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 1), "mask"),
            ]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
    )
    client = _client()
    mlflow.set_tracking_uri(tracking_uri())
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the input example, which a signature makes needless
        packages = [_copy_package(ROOT / package, Path(folder)) for package in code]
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(ROOT / "jobs" / "registered_model.py"),
            artifacts={key: str(path) for key, path in files.items()},
            code_paths=packages,
            signature=signature,
            registered_model_name=name,
            pip_requirements=list(requirements),
        )
    version = max(
        client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"), key=lambda v: int(v.version)
    )
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, value)
    client.set_registered_model_alias(name, "candidate", version.version)
    return version.version


def load_model(name: str, version: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A registered generator as a function (image uint8 (N, H, W, 3), mask uint8 (N, H, W, 1)) -> image.

    version: a number or an alias such as "candidate". Raises ModelError when there is none.
    """
    mlflow.set_tracking_uri(tracking_uri())
    separator = "/" if version.isdigit() else "@"
    try:
        model = mlflow.pyfunc.load_model(f"models:/{name}{separator}{version}")
    except MlflowException as error:
        raise ModelError(f"{name} {version} cannot be loaded from {tracking_uri()}: {error.message}") from error
    return lambda image, mask: model.predict({"image": image, "mask": mask})


class RegisteredModel(mlflow.pyfunc.PythonModel):
    """A registered generator: `load` gives the function from its files that `predict` applies."""

    _skip_type_hint_validation = True  # the model has a signature; MLflow would ask for a second one in type hints

    def __init__(self, load: Callable[[Mapping[str, Path]], Callable[[np.ndarray, np.ndarray], np.ndarray]]) -> None:
        self._load = load

    def load_context(self, context: Any) -> None:
        """Called by MLflow with the model's files."""
        self._fill = self._load({name: Path(path) for name, path in context.artifacts.items()})

    def predict(self, context, model_input, params=None):
        """model_input: {"image": uint8 (N, H, W, 3), "mask": uint8 (N, H, W, 1), 1 = hole} -> uint8 (N, H, W, 3)."""
        return self._fill(model_input["image"], model_input["mask"])


def serve(model: RegisteredModel) -> None:
    """Declare what MLflow finds when it runs the file of a model that was registered as code."""
    set_model(model)


def _copy_package(package: Path, folder: Path) -> str:
    """A package's sources without what Python leaves beside them, so that the registered bytes repeat."""
    target = folder / package.name
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return str(target)


def _client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=tracking_uri())


def _experiment(client: mlflow.MlflowClient) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return found.experiment_id
    local = "MLFLOW_TRACKING_URI" not in os.environ
    return client.create_experiment(EXPERIMENT, artifact_location=(ROOT / "mlartifacts").as_uri() if local else None)


def _dataset_input(dataset: TrackedDataset) -> DatasetInput:
    profile = json.dumps({"num_records": dataset.records})
    return DatasetInput(
        # MLflow keeps 36 characters of a digest; the tag has all of them.
        Dataset(dataset.name, dataset.digest[:36], "local", json.dumps({"uri": dataset.source}), profile=profile),
        [InputTag("mlflow.data.context", dataset.context), InputTag("manifest_sha256", dataset.digest)],
    )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _now() -> int:
    return int(time.time() * 1000)
