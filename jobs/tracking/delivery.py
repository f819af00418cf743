"""Upload the files that a training wrote to its storage: events, samples and the model, to its run in MLflow.

Training itself only writes files and never waits for the tracking server: `run.json` describes the run, `events.jsonl`
and `samples/` grow while it trains, `model.json` and `model/` hold the model that is registered at the end. An upload
may break off or be killed at any moment; the next one completes it and nothing is on the server twice:

1. Everything that is created on the server (run, logged file, registered version) is looked for there first.
2. For every metric the server is asked for the last step that it has. Only later points are sent, in order.
3. A resent point is dropped, since its step is not later than the last one on the server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files.addresses import without_secrets
from files.code_archive import process_code
from files.durable import durable_file, write_durably
from jobs.runs.events import Event, device_hours, read_events, read_log, read_segments, useful_step_ratio
from jobs.runs.folder import RunFolder
from jobs.tracking import mlflow_runs as tracking
from jobs.tracking.queue import REASON, exclusive, list_waiting, printable_path, read_name

log = logging.getLogger(__name__)

END_SECONDS = 300.0  # the longest that a finished training waits for its upload
STOP_SECONDS = 5.0  # the longest that a training waits for its upload after a failure or a signal
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_RUN, _CODE, _MODEL = RunFolder.RUN, RunFolder.CODE, RunFolder.MODEL
_EVENTS, _SAMPLES = RunFolder.EVENTS, RunFolder.SAMPLES


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The outcome for one training that waited.

    folder: where it waited.
    run: name of its run.
    version: the registered version, if there was a model.
    problem: why it still waits, or which files of it do; None if nothing waits.
    """

    folder: str
    run: str
    version: str | None = None
    problem: str | None = None


def describe_run(
    storage: Path,
    name: str,
    *,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[tracking.TrackedDataset],
    files: Mapping[str, str],
) -> None:
    """Describe a training's run in its storage, beside the code of this process. A restart keeps those of the first
    start.

    Addresses are described without passwords and queries.

    storage: folder of the training.
    name: of the run.
    parameters: a tree of values; the run has them as flat texts.
    datasets: columns that the training reads.
    files: path below the run's artifacts -> text.
    """
    if (storage / _RUN).is_file():
        return
    write_durably(storage / _CODE, process_code().archive)
    description = {
        "name": name,
        "training": uuid.uuid4().hex,
        "started": time.time(),
        "tags": tags,
        "files": {path: without_secrets(text) for path, text in files.items()},
        "parameters": tracking.flatten(parameters),
        "datasets": [asdict(dataset) for dataset in datasets],
    }
    _write_json(storage / _RUN, description)


def stage_model(
    storage: Path,
    name: str,
    *,
    files: Mapping[str, Path],
    code: Mapping[str, bytes],
    tags: Mapping[str, str],
    requirements: Sequence[str],
    added: Mapping[str, bytes] | None = None,
) -> None:
    """Copy a model to the storage, from which `deliver` registers it; see tracking.register_model.

    storage: folder of the training.
    name: of the registered model.
    files: name -> folder.
    code: files of one private package: path -> content.
    tags: of the registered version.
    requirements: pinned packages, such as "numpy==2.0.0".
    added: further files: "<name of files>/<folder>/<file>" -> content.
    """
    shutil.rmtree(storage / "model", ignore_errors=True)
    for key, folder in files.items():
        shutil.copytree(folder, storage / "model" / "files" / key / folder.name, copy_function=_copy)
    for path, content in (added or {}).items():
        write_durably(storage / "model" / "files" / path, content)
    for path, content in code.items():
        write_durably(storage / "model" / "code" / path, content)
    paths = {key: f"model/files/{key}/{folder.name}" for key, folder in files.items()}
    model = {"name": name, "files": paths, "tags": tags, "requirements": requirements}
    _write_json(storage / _MODEL, {"ended": time.time(), "model": model})


def deliver(storage: Path) -> tuple[str | None, str | None]:
    """Upload the rest of a finished training, register its model and close its run.

    Returns the registered version, and the problem of files that could not be uploaded.
    """
    upload = _RunUpload(storage)
    upload.send([event for event, _ in read_events(storage / _EVENTS)])
    return upload.close("FINISHED"), upload.problem


def deliver_waiting(undelivered: Path) -> list[Delivery]:
    """Deliver every waiting training, oldest first, and remove each one that was delivered from the disk."""
    with exclusive(undelivered):
        return _deliver_waiting(undelivered)


class TrackingSync:
    """Upload a training's events while it trains, and the rest at its end, in a thread. Use it with `with`.

    At the end of the block, the trainings that wait in `undelivered` are delivered, then this one. After an error only
    the run's status is set: SCHEDULED for one of `resumable`, since the next start continues the training; FAILED for
    any other. The end waits for the thread END_SECONDS at most, after an error STOP_SECONDS.

    storage: folder of the training.
    undelivered: folder of the trainings that wait for the server.
    on_event: called in the thread with every event of the log, delivered or not.
    on_warning: called in the thread with every warning that the log got since this start.
    resumable: errors after which the training will be continued.

    delivered: whether everything of this training is on the server. Read it after the block.
    problem: why not, in one line.
    """

    def __init__(
        self,
        storage: Path,
        undelivered: Path,
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        on_warning: Callable[[str], None] = lambda text: None,
        resumable: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit),
    ) -> None:
        self.storage = storage
        self.undelivered = undelivered
        self.on_event = on_event
        self.on_warning = on_warning
        self.resumable = resumable
        self.delivered = False
        self.problem = f"the tracking server took more than {END_SECONDS:.0f} s"
        self._upload: _RunUpload | None = None  # None before the first connection and after an error
        self._offset = 0  # of the log, in bytes: events before it were read
        log_file = storage / _EVENTS
        self._old_size = (
            log_file.stat().st_size if log_file.is_file() else 0
        )  # warnings before it are of earlier starts
        self._unsent: list[Event] = []
        self._status = "FINISHED"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking-sync", daemon=True)

    def __enter__(self) -> TrackingSync:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._status = "SCHEDULED" if issubclass(kind, self.resumable) else "FAILED"
        self._stop.set()
        self._thread.join(STOP_SECONDS if kind else END_SECONDS)

    def _run(self) -> None:
        self._sync_until_stopped()
        try:
            self._read()
            self._finish()
        except Exception as error:
            self.problem = tracking.reason(error)

    def _sync_until_stopped(self) -> None:
        """Read and send new events again and again. The first of several errors in a row is logged."""
        pause, is_failing = 0.0, False
        while not self._stop.wait(pause):
            try:
                self._read()
                self._send()
            except Exception as error:  # no error of tracking may stop the training
                if not is_failing:
                    self._warn(error)
                self._upload = None
                pause, is_failing = _RETRY_SECONDS, True
            else:
                pause, is_failing = _PAUSE_SECONDS, False

    def _warn(self, error: Exception) -> None:
        reason = tracking.reason(error)
        log.warning("tracking: %s; training goes on, and its events are kept in %s", reason, self.storage)

    def _read(self) -> None:
        for entry, offset in read_log(self.storage / _EVENTS, offset=self._offset):
            self._offset = offset
            if isinstance(entry, Event):
                self._unsent.append(entry)
                self.on_event(entry)
            elif offset > self._old_size:
                self.on_warning(entry)

    def _send(self) -> None:
        if self._upload is None:
            self._upload = _RunUpload(self.storage)
        self._upload.send(self._unsent)
        self._unsent.clear()

    def _finish(self) -> None:
        tracking.check_server()
        if self._status != "FINISHED":
            self._send()
            self._upload.close(self._status)
            return
        with exclusive(self.undelivered):
            _deliver_waiting(self.undelivered)
            _, problem = deliver(self.storage)
        self.delivered = problem is None
        self.problem = problem or self.problem


class _RunUpload:
    """One training's run on the server, opened.

    Discard it after any error: it remembers what it has sent, and only a new one asks the server what has arrived.
    """

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        description = json.loads((storage / _RUN).read_bytes())
        description["datasets"] = [tracking.TrackedDataset(**dataset) for dataset in description["datasets"]]
        self.run_id = tracking.open_run(**description)
        tracking.log_files(self.run_id, storage.glob(_CODE), tracking.CODE_FOLDER)
        self._last_step: dict[str, int] = {}  # metric -> last step on the server
        self._sent_samples: set[Path] = set()
        self._unfit: dict[Path, str] = {}

    @property
    def problem(self) -> str | None:
        """Name the files that could not be uploaded; None if there are none."""
        if not self._unfit:
            return None
        path, reason = next(iter(self._unfit.items()))
        count = f", as do {len(self._unfit) - 1} more" if len(self._unfit) > 1 else ""
        return f"{printable_path(path)} stays behind{count} ({reason}); mend or remove it"

    def send(self, events: Sequence[Event]) -> None:
        """Send the metrics and samples that the server lacks.

        A step that was computed twice, because a restart repeated it, keeps the metrics of its first time.
        """
        points = []
        for event in events:
            groups = {"": event.losses, "speed/": event.speed, "system/": event.system}
            metrics = {f"{prefix}{name}": value for prefix, group in groups.items() for name, value in group.items()}
            points += self._new_points(metrics, event.step, event.time)
        tracking.log_points(self.run_id, points)
        samples = sorted(set((self.storage / _SAMPLES).glob("step-*.png")) - self._sent_samples)
        if samples:
            self._unfit |= tracking.log_files(self.run_id, samples, _SAMPLES)
            self._sent_samples.update(samples)

    def close(self, status: str) -> str | None:
        """Log the segments and end the run with a status. Register the model of a finished training.

        Returns the registered version, if there is one.
        """
        self._log_segments(status)
        version = None
        staged = _read_json(self.storage / _MODEL)
        if status == "FINISHED" and staged:
            version = self._register(**staged["model"])
        tracking.close_run(self.run_id, status, ended=staged.get("ended"))
        return version

    def _log_segments(self, status: str) -> None:
        ran = read_segments(self.storage / _EVENTS)
        if not ran:
            return
        tracking.log_text(self.run_id, json.dumps([asdict(segment) for segment in ran], indent=2), "segments.json")
        if status == "FINISHED":
            last = ran[-1]
            metrics = {"useful_step_ratio": useful_step_ratio(ran), "restarts": len(ran) - 1.0, **device_hours(ran)}
            tracking.log_points(self.run_id, self._new_points(metrics, last.to_step, last.started + last.seconds))

    def _new_points(self, metrics: Mapping[str, float], step: int, seconds: float) -> list[tracking.Point]:
        """Return the points that come after the last step of their metric, and count them as sent."""
        points = []
        for key, value in metrics.items():
            if key not in self._last_step:
                self._last_step[key] = tracking.last_step(self.run_id, key)
            if step > self._last_step[key]:
                self._last_step[key] = step
                points.append((key, value, step, seconds))
        return points

    def _register(self, *, name: str, files: Mapping[str, str], **rest: Any) -> str:
        folders = {key: self.storage / path for key, path in files.items()}
        return tracking.register_model(self.run_id, name, files=folders, code=self.storage / "model" / "code", **rest)


def _deliver_waiting(undelivered: Path) -> list[Delivery]:
    for folder in undelivered.glob(".[0-9]*"):  # was delivered, but its removal was killed
        shutil.rmtree(folder)
    return [_deliver_one(folder) for folder in list_waiting(undelivered)]


def _deliver_one(folder: Path) -> Delivery:
    """Deliver one waiting training and remove it. After an error it keeps waiting, and the next one is tried."""
    run, version = folder.name, None
    try:
        run = read_name(folder / _RUN)
        tracking.check_server()
        version, problem = deliver(folder)
    except Exception as error:
        problem = tracking.reason(error)
    if problem:
        with contextlib.suppress(OSError):  # it is only for the next start to tell
            write_durably(folder / REASON, problem.encode(errors="backslashreplace"))
        return Delivery(folder=printable_path(folder), run=run, version=version, problem=problem)
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))  # so that no half-removed one is delivered again
    return Delivery(folder=str(folder), run=run, version=version)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file, or {} if there is none."""
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    write_durably(path, json.dumps(tree, indent=2).encode())


def _copy(source: str, target: str) -> None:
    with Path(source).open("rb") as read, durable_file(Path(target)) as written:
        shutil.copyfileobj(read, written)
