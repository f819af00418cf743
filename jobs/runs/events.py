"""The event log of a training: losses, speed, load and warnings, one JSON object per line of `events.jsonl`.

Rank 0 appends to the file in the run folder. Progress bars, tracking and reports read it, so that training waits for
none of them.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Figures after `step` steps. The losses repeat to the bit; everything else depends on the machine.

    losses: `<phase>/<term>` -> mean over the global batch.
    speed: such as images_per_second.
    system: load of rank 0's process.
    time: Unix time, in seconds.
    seconds: since the segment began, or the log was opened, by a clock that is never set.
    """

    step: int
    losses: dict[str, float]
    speed: dict[str, float]
    system: dict[str, float]
    time: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps computed by one set of workers, from a start or restart to its end or the next restart.

    from_step: steps done before it.
    to_step: steps done at its end, as far as the log tells. A killed segment's last steps are not in the log; they are
        fewer than `log_steps`, and fewer than the steps to its next checkpoint.
    world_size: number of workers.
    nodes: host name of each worker.
    devices: "cpu" or a GPU's name for each worker.
    started: Unix time, in seconds.
    seconds: from its start to its last event.
    """

    from_step: int
    to_step: int
    world_size: int
    nodes: tuple[str, ...]
    devices: tuple[str, ...]
    started: float
    seconds: float


class EventLog:
    """Append events to the log of a training. Only one process may write to it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if path.is_file():
            _cut_half_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._load = _Load()
        self._not_repeatable: set[str] = set()
        self._lock = threading.Lock()  # other threads may warn
        self._began = time.monotonic()

    def segment(self, *, from_step: int, world_size: int, nodes: Sequence[str], devices: Sequence[str]) -> None:
        """Append the start of a segment, see `Segment`."""
        self._began = time.monotonic()
        workers = {"world_size": world_size, "nodes": list(nodes), "devices": list(devices)}
        self._append({"segment": {"from_step": from_step, **workers, "started": time.time()}})

    def log(self, step: int, losses: Mapping[str, float], **speed: float) -> None:
        """Append an event, with the load of this process."""
        figures = {"losses": dict(losses), "speed": speed, "system": self._load.read()}
        self._append({"step": step, **figures, "time": time.time(), "seconds": time.monotonic() - self._began})

    def not_repeatable(self, operations: Set[str]) -> None:
        """Append and log the names of operations that do not repeat to the bit on this device, once each."""
        if new := sorted(operations - self._not_repeatable):
            self._not_repeatable.update(new)
            log.warning("on this device these operations do not repeat to the bit: %s", ", ".join(new))
            self._append({"not_repeatable": new})

    def warning(self, text: str) -> None:
        """Append a warning, so that the stage can show it: a worker of a cluster has no terminal."""
        self._append({"warning": text})

    def flush(self) -> None:
        """Wait until all events are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class WarningsOf(logging.Handler):
    """Copy the warnings of some loggers to an event log until closed."""

    def __init__(self, events: EventLog, loggers: Sequence[str]) -> None:
        super().__init__(logging.WARNING)
        self._events = events
        self._loggers = [logging.getLogger(name) for name in loggers]
        for logger in self._loggers:
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._events.warning(record.getMessage())
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        for logger in self._loggers:
            logger.removeHandler(self)
        super().close()


class _Load:
    """Measure what this process uses of its machine."""

    def __init__(self) -> None:
        import psutil  # here and below, since readers of a log need neither

        self._process = psutil.Process()
        self._process.cpu_percent()  # each call measures since the one before
        self._has_utilization = True

    def read(self) -> dict[str, float]:
        """Return the load: cpu_percent since the last reading, 100 per busy core; gpu_peak_bytes of this process."""
        import torch

        figures = {
            "cpu_percent": self._process.cpu_percent(),
            "resident_bytes": float(self._process.memory_info().rss),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            figures["gpu_peak_bytes"] = float(torch.cuda.max_memory_allocated())
            if self._has_utilization:
                try:
                    figures["gpu_utilization_percent"] = float(torch.cuda.utilization())
                except Exception:  # NVML is missing or fails in many ways; training goes on without this figure
                    self._has_utilization = False
        return figures


def read_events(path: Path, *, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield the events after a byte offset, each with the offset after its line.

    A line without its end, which is still being written, is not read. A missing file has no events.
    """
    return ((entry, end) for entry, end in read_log(path, offset=offset) if isinstance(entry, Event))


def read_log(path: Path, *, offset: int = 0) -> Iterator[tuple[Event | str, int]]:
    """Yield events as `read_events` does, and the texts of warnings in between."""
    for line, end in _read_lines(path, offset):
        if "step" in line:
            yield Event(**line), end
        elif "warning" in line:
            yield line["warning"], end


def read_newest_events(path: Path, *, num_bytes: int = 100_000) -> list[Event]:
    """Return the last events of the newest segment, oldest first. A missing file has none.

    num_bytes: how much of the end of the log is read, since a log may have many megabytes.
    """
    events: list[Event] = []
    for line, _ in _read_lines(path, _line_start(path, num_bytes)):
        if "segment" in line:
            events.clear()
        elif "step" in line:
            events.append(Event(**line))
    return events


def _line_start(path: Path, num_bytes: int) -> int:
    """Return the offset of the first line that begins in the last bytes of a file."""
    size = path.stat().st_size if path.is_file() else 0
    if size <= num_bytes:
        return 0
    with path.open("rb") as file:
        file.seek(size - num_bytes)
        file.readline()
        return file.tell()


def losses_by_step(path: Path) -> dict[int, dict[str, float]]:
    """Return the losses of every logged step, sorted by step. A step repeated after a restart counts once, the last."""
    losses = {event.step: event.losses for event, _ in read_events(path)}
    return dict(sorted(losses.items()))


def read_segments(path: Path) -> list[Segment]:
    """Return the segments of a training in the order in which they ran. A restart may repeat steps."""
    segments: list[Segment] = []
    for line, _ in _read_lines(path, 0):
        if "segment" in line:
            start = line["segment"]
            if segments:  # a restart's checkpoint may be newer than the last event
                segments[-1] = _extend(segments[-1], start["from_step"], segments[-1].seconds)
            tuples = {name: tuple(start[name]) for name in ("nodes", "devices")}
            segments.append(Segment(**{**start, **tuples}, to_step=start["from_step"], seconds=0.0))
        elif "step" in line and segments:
            segments[-1] = _extend(segments[-1], line["step"], line["seconds"])
    return segments


def _extend(segment: Segment, step: int, seconds: float) -> Segment:
    return replace(segment, to_step=max(segment.to_step, step), seconds=seconds)


def read_not_repeatable(path: Path) -> tuple[str, ...]:
    """Return the operations of a training that did not repeat to the bit on its devices, sorted by name."""
    return tuple(sorted({name for line, _ in _read_lines(path, 0) for name in line.get("not_repeatable", ())}))


def useful_step_ratio(segments: Sequence[Segment]) -> float:
    """Return steps of the training / steps executed, repetitions after restarts included; 1 if nothing was executed.

    Steps lost in a kill before they were logged are not counted. The ratio may be too high by a log interval per kill.
    """
    executed = sum(segment.to_step - segment.from_step for segment in segments)
    done = max((segment.to_step for segment in segments), default=0)
    return (done - segments[0].from_step) / executed if executed else 1.0


def device_hours(segments: Sequence[Segment]) -> dict[str, float]:
    """Return "gpu_hours", summed over workers with a GPU, and "cpu_hours", summed over workers without one."""
    hours = {"gpu_hours": 0.0, "cpu_hours": 0.0}
    for segment in segments:
        for device in segment.devices:
            hours["cpu_hours" if device.startswith("cpu") else "gpu_hours"] += segment.seconds / 3600
    return hours


def _read_lines(path: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the whole lines after a byte offset, each with the offset after it."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def _cut_half_line(path: Path) -> None:
    """Remove the line without an end that a killed writer may have left."""
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
