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
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files.durable import write_durably
from jobs.runs.events import Event, device_hours, read_events, read_segments, useful_step_ratio
from jobs.runs.folder import RunFolder
from jobs.tracking import mlflow_runs as tracking
from jobs.tracking.mlflow_registry import register_model
from jobs.tracking.queue import REASON, exclusive, list_waiting, printable_path, read_name
from jobs.tracking.staging import TrackedDataset

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


def deliver(storage: Path) -> tuple[str | None, str | None]:
    """Upload the rest of a finished training, register its model and close its run.

    Returns the registered version, and the problem of files that could not be uploaded.
    """
    upload = RunUpload(storage)
    upload.send([event for event, _ in read_events(storage / _EVENTS)])
    return upload.close("FINISHED"), upload.problem


def deliver_waiting(undelivered: Path) -> list[Delivery]:
    """Deliver every waiting training, oldest first, and remove each one that was delivered from the disk."""
    with exclusive(undelivered):
        return deliver_queue(undelivered)


class RunUpload:
    """One training's run on the server, opened.

    Discard it after any error: it remembers what it has sent, and only a new one asks the server what has arrived.
    """

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        description = json.loads((storage / _RUN).read_bytes())
        description["datasets"] = [TrackedDataset(**dataset) for dataset in description["datasets"]]
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
        return register_model(self.run_id, name, files=folders, code=self.storage / "model" / "code", **rest)


def deliver_queue(undelivered: Path) -> list[Delivery]:
    """Do the work of `deliver_waiting`. The caller holds the queue exclusively."""
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
