"""What waits on disk for the tracking server, and the courier that brings it there, in order and once.

Training writes files to its storage and waits for nobody: `run.json` says what is trained, `events.jsonl` and
`samples/` what happens, `model.json` and `model/` what is to be registered at the end. Whatever is made on the server
is looked for there first, and of each figure the server has a beginning, whose end is asked for. So a delivery may
break off or be killed anywhere: the next one completes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files.durable import durable_file, write_durably
from files.locks import lock_file
from jobs.runs.events import Event, device_hours, read_events, read_log, read_segments, useful_step_ratio
from jobs.runs.folder import RunFolder
from jobs.tracking import mlflow_runs as tracking

log = logging.getLogger(__name__)

END_SECONDS = 300.0  # the longest that a finished training waits for its delivery, which goes on as long as it succeeds
STOP_SECONDS = 5.0  # the same after a failure or a signal
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_RUN, _MODEL, _EVENTS, _SAMPLES = RunFolder.RUN, RunFolder.MODEL, RunFolder.EVENTS, RunFolder.SAMPLES


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one training that had waited: its registered version, or the problem for which it still waits."""

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
    """Write down the run that a training will be; a restart leaves what its first start wrote."""
    if not (storage / _RUN).is_file():
        run = {"name": name, "training": uuid.uuid4().hex, "started": time.time(), "tags": tags, "files": files}
        rows = [asdict(dataset) for dataset in datasets]
        _write(storage / _RUN, {**run, "parameters": tracking.flatten(parameters), "datasets": rows})


def stage_model(
    storage: Path,
    name: str,
    *,
    files: Mapping[str, Path],
    code: Sequence[str],
    tags: Mapping[str, str],
    requirements: Sequence[str],
) -> None:
    """Copy to the storage what is to be registered as `name`; see tracking.register_model.

    files: folders by name. code: packages of this checkout.
    """
    shutil.rmtree(storage / "model", ignore_errors=True)
    for key, folder in files.items():
        shutil.copytree(folder, storage / "model" / "files" / key / folder.name, copy_function=_copy)
    tracking.copy_code(code, storage / "model" / "code", _copy)
    paths = {key: f"model/files/{key}/{folder.name}" for key, folder in files.items()}
    model = {"name": name, "files": paths, "tags": tags, "requirements": requirements}
    _write(storage / _MODEL, {"ended": time.time(), "model": model})


def park(storage: Path, undelivered: Path) -> Path:
    """Move a finished training's storage to where it waits for the tracking server, without its checkpoints."""
    undelivered.mkdir(parents=True, exist_ok=True)
    number = 1 + max((_number(folder) for folder in _waiting(undelivered)), default=0)
    folder = undelivered / f"{number:04d}-{storage.parent.name}-{storage.name}"
    storage.rename(folder)
    for path in folder.iterdir():
        if path.name not in (_RUN, _MODEL, _EVENTS, _SAMPLES, "model"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def deliver(storage: Path) -> str | None:
    """Bring all that a finished training has to say to its run and close it; returns its registered version."""
    upload = _RunUpload(storage)
    upload.send([event for event, _ in read_events(storage / _EVENTS)])
    return upload.close("FINISHED")


def deliver_waiting(undelivered: Path) -> list[Delivery]:
    """Deliver the trainings that were set aside, oldest first, and remove each that has arrived."""
    with _alone(undelivered):
        return _deliver_waiting(undelivered)


class TrackingSync:
    """Brings a training's events to its run while it runs, and the rest at the end, in a thread; use it with `with`.

    Left without an error, it delivers what was set aside before, then all of this training, and `delivered` says
    whether it could; `problem` says why not. Left with one of `resumable`, it marks the run as SCHEDULED, that is, to
    be taken up by the next start of the same training; with another error, as FAILED. The server alone can hold up the
    thread, and leaving waits END_SECONDS for it at most, STOP_SECONDS after an error.

    on_event is called in that thread with every event as it is found, delivered or not; on_warning with every warning
    since this start.
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
        self._upload: _RunUpload | None = None
        self._offset = 0
        log = storage / _EVENTS
        self._told = log.stat().st_size if log.is_file() else 0  # what was warned of before this start
        self._unsent: list[Event] = []
        self._status = "FINISHED"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> TrackingSync:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._status = "SCHEDULED" if issubclass(kind, self.resumable) else "FAILED"
        self._stop.set()
        self._thread.join(STOP_SECONDS if kind else END_SECONDS)

    def _run(self) -> None:
        answers, pause = True, 0.0
        while not self._stop.wait(pause):
            try:
                self._read()
                self._send()
                answers, pause = True, _PAUSE_SECONDS
            except Exception as error:  # whatever it is, training goes on
                if answers:
                    log.warning(
                        "tracking: %s; training goes on, and what it says waits in %s",
                        tracking.reason(error),
                        self.storage,
                    )
                self._upload, answers, pause = None, False, _RETRY_SECONDS
        try:
            self._read()
            self._end()
        except Exception as error:
            self.problem = tracking.reason(error)

    def _read(self) -> None:
        for entry, offset in read_log(self.storage / _EVENTS, offset=self._offset):
            self._offset = offset
            if isinstance(entry, Event):
                self._unsent.append(entry)
                self.on_event(entry)
            elif offset > self._told:
                self.on_warning(entry)

    def _send(self) -> None:
        if self._upload is None:
            self._upload = _RunUpload(self.storage)
        self._upload.send(self._unsent)
        self._unsent.clear()

    def _end(self) -> None:
        tracking.check_server()
        if self._status != "FINISHED":
            self._send()
            self._upload.close(self._status)
            return
        with _alone(self.undelivered):
            _deliver_waiting(self.undelivered)
            deliver(self.storage)
        self.delivered = True


class _RunUpload:
    """A training's run on the server, opened; after any error another is to be made, which asks what has arrived."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        run = json.loads((storage / _RUN).read_bytes())
        run["datasets"] = [tracking.TrackedDataset(**dataset) for dataset in run["datasets"]]
        self.run_id = tracking.open_run(**run)
        self._last: dict[str, int] = {}
        self._pictures: set[Path] = set()

    def send(self, events: Sequence[Event]) -> None:
        """Send what the server has not; of a step that was run twice, the figures of the first time."""
        points = []
        for event in events:
            groups = {"": event.losses, "speed/": event.speed, "system/": event.system}
            figures = {f"{prefix}{name}": value for prefix, group in groups.items() for name, value in group.items()}
            points += self._new(figures, event.step, event.time)
        tracking.log_points(self.run_id, points)
        pictures = sorted(set((self.storage / _SAMPLES).glob("step-*.png")) - self._pictures)
        if pictures:
            tracking.log_files(self.run_id, pictures, _SAMPLES)
            self._pictures.update(pictures)

    def close(self, status: str) -> str | None:
        """Say in which segments the training ran, and end the run; register the model of one that is finished."""
        ran = read_segments(self.storage / _EVENTS)
        if ran:
            tracking.log_text(self.run_id, json.dumps([asdict(segment) for segment in ran], indent=2), "segments.json")
        if status == "FINISHED" and ran:
            figures = {"useful_step_ratio": useful_step_ratio(ran), "restarts": len(ran) - 1.0, **device_hours(ran)}
            tracking.log_points(self.run_id, self._new(figures, ran[-1].to_step, ran[-1].started + ran[-1].seconds))
        handed_in = json.loads((self.storage / _MODEL).read_bytes()) if (self.storage / _MODEL).is_file() else {}
        version = self._register(**handed_in["model"]) if status == "FINISHED" and handed_in else None
        tracking.close_run(self.run_id, status, ended=handed_in.get("ended"))
        return version

    def _new(self, figures: Mapping[str, float], step: int, seconds: float) -> list[tuple[str, float, int, float]]:
        """Those figures that come after the last one sent."""
        found = []
        for key, value in figures.items():
            if key not in self._last:
                self._last[key] = tracking.last_step(self.run_id, key)
            if step > self._last[key]:
                self._last[key] = step
                found.append((key, value, step, seconds))
        return found

    def _register(self, *, name: str, files: Mapping[str, str], **rest: Any) -> str:
        paths = {key: self.storage / path for key, path in files.items()}
        return tracking.register_model(self.run_id, name, files=paths, code=self.storage / "model" / "code", **rest)


def _deliver_waiting(undelivered: Path) -> list[Delivery]:
    for left in undelivered.glob(".[0-9]*"):  # delivered, and not wholly removed
        shutil.rmtree(left)
    done = []
    for folder in _waiting(undelivered):
        run = json.loads((folder / _RUN).read_bytes())["name"]
        try:
            tracking.check_server()
            version = deliver(folder)
        except Exception as error:  # the next one may have better luck
            done.append(Delivery(folder=str(folder), run=run, problem=tracking.reason(error)))
            continue
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))
        done.append(Delivery(folder=str(folder), run=run, version=version))
    return done


def _waiting(undelivered: Path) -> list[Path]:
    return sorted((path.parent for path in undelivered.glob(f"[0-9]*/{_RUN}")), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.split("-")[0])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One delivery at a time from a folder, if there is one; a killed one holds up nobody."""
    with (folder / ".lock").open("w") if folder.is_dir() else contextlib.nullcontext() as file:
        if file:
            lock_file(file)
        yield


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    write_durably(path, json.dumps(tree, indent=2).encode())


def _copy(source: str, target: str) -> None:
    with Path(source).open("rb") as read, durable_file(Path(target)) as written:
        shutil.copyfileobj(read, written)
