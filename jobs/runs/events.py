"""What a training says while it runs: losses, speed, load and sample pictures, on disk first: it waits for nobody.

Rank 0 appends to `events.jsonl` in the run's storage; whoever wants to know reads that file.
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

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from files.durable import durable_file

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Figures after `step` steps: `losses` repeat to the bit, all else belongs to the machine that ran.

    speed: images per second and the like. system: load of rank 0's process. time: Unix time, in seconds.
    seconds: since the segment began, or the log was opened; no change of the clock touches them.
    """

    step: int
    losses: dict[str, float]
    speed: dict[str, float]
    system: dict[str, float]
    time: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One stretch of a training, from a start or restart to its end or the next restart.

    from_step, to_step: steps done before it and at its end, as far as is known: a killed segment's last steps, fewer
        than `log_steps` and than to the next checkpoint, are in no log.
    nodes: host names. devices: one per process, "cpu" or a GPU's name. started: Unix time, in seconds.
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
    """Append events to a file that only this process writes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if path.is_file():  # a killed writer may have left half a line
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")
        self._load = _Load()
        self._not_repeatable: set[str] = set()
        self._lock = threading.Lock()  # other threads may warn
        self._began = time.monotonic()

    def segment(self, *, from_step: int, world_size: int, nodes: Sequence[str], devices: Sequence[str]) -> None:
        """Append that training starts, or goes on, after `from_step` steps; see `Segment`."""
        self._began = time.monotonic()
        about = {"from_step": from_step, "world_size": world_size, "nodes": list(nodes), "devices": list(devices)}
        self._append({"segment": {**about, "started": time.time()}})

    def log(self, step: int, losses: Mapping[str, float], **speed: float) -> None:
        """Append one event, with the load of this process beside it."""
        figures = {"losses": dict(losses), "speed": speed, "system": self._load.read()}
        self._append({"step": step, **figures, "time": time.time(), "seconds": time.monotonic() - self._began})

    def not_repeatable(self, operations: Set[str]) -> None:
        """Append the names of operations that cannot repeat to the bit on this device, once each."""
        if new := sorted(operations - self._not_repeatable):
            self._not_repeatable.update(new)
            log.warning("on this device these operations do not repeat to the bit: %s", ", ".join(new))
            self._append({"not_repeatable": new})

    def warning(self, text: str) -> None:
        """Append what somebody should know and what ends nothing: a worker of a cluster has no terminal."""
        self._append({"warning": text})

    def image(self, step: int, image: Tensor) -> None:
        """Save a picture, (3, H, W) in [-1, 1], as `samples/step-<step>.png` beside the log."""
        array = ((image.detach().cpu().numpy().transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
        with durable_file(self.path.parent / "samples" / f"step-{step:08d}.png") as file:
            Image.fromarray(array).save(file, "PNG")

    def flush(self) -> None:
        """Put everything so far on the disk."""
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
    """While it is open, what these loggers warn of goes to an event log, too."""

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
    """What this process takes of its machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # figures are since the call before
        self._has_utilization = True

    def read(self) -> dict[str, float]:
        """`cpu_percent` is since the last reading, 100 for each core kept busy; `gpu_peak_bytes` this process's."""
        figures = {
            "cpu_percent": self._process.cpu_percent(),
            "resident_bytes": float(self._process.memory_info().rss),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            figures["gpu_peak_bytes"] = float(torch.cuda.max_memory_allocated())
            if self._has_utilization:
                try:
                    figures["gpu_utilization_percent"] = float(torch.cuda.utilization())
                except Exception:  # whatever NVML says, if it is there at all: training goes on without the figure
                    self._has_utilization = False
        return figures


def read_events(path: Path, *, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from a byte offset on, each with the offset behind it; a line still being written is left for later."""
    return ((entry, behind) for entry, behind in read_log(path, offset=offset) if isinstance(entry, Event))


def read_log(path: Path, *, offset: int = 0) -> Iterator[tuple[Event | str, int]]:
    """Events, as `read_events` gives them, and between them the texts of warnings."""
    for line, behind in _lines(path, offset):
        if "step" in line:
            yield Event(**line), behind
        elif "warning" in line:
            yield line["warning"], behind


def losses_by_step(path: Path) -> dict[int, dict[str, float]]:
    """Every step's losses, in order; of a step that was run twice, after a restart, the later run counts."""
    events = {event.step: event.losses for event, _ in read_events(path)}
    return dict(sorted(events.items()))


def segments(path: Path) -> list[Segment]:
    """The segments of a training, in the order in which they ran; a restart may repeat steps of the one before."""
    found: list[Segment] = []
    for line, _ in _lines(path, 0):
        start = line.get("segment")
        if not start and "step" not in line:
            continue
        step = start["from_step"] if start else line["step"]
        if found:  # a restart's checkpoint may be newer than the last event
            seconds = found[-1].seconds if start else line["seconds"]
            found[-1] = replace(found[-1], to_step=max(found[-1].to_step, step), seconds=seconds)
        if start:
            names = {key: tuple(start[key]) for key in ("nodes", "devices")}
            found.append(Segment(**{**start, **names}, to_step=step, seconds=0.0))
    return found


def not_repeatable(path: Path) -> tuple[str, ...]:
    """Operations of a training that could not repeat to the bit on a device that it ran on; empty on a CPU."""
    return tuple(sorted({name for line, _ in _lines(path, 0) for name in line.get("not_repeatable", ())}))


def useful_step_ratio(segments: Sequence[Segment]) -> float:
    """Steps of the training / steps executed, those repeated after restarts included; 1 before anything ran.

    Steps that a kill took before they were logged are not counted, so it may be too high by a log interval per restart.
    """
    executed = sum(segment.to_step - segment.from_step for segment in segments)
    done = max((segment.to_step for segment in segments), default=0)
    return (done - segments[0].from_step) / executed if executed else 1.0


def device_hours(segments: Sequence[Segment]) -> dict[str, float]:
    """Hours that processes held a GPU, `gpu_hours`, and that processes without one ran, `cpu_hours`."""
    hours = {"gpu_hours": 0.0, "cpu_hours": 0.0}
    for segment in segments:
        for device in segment.devices:
            hours["cpu_hours" if device.startswith("cpu") else "gpu_hours"] += segment.seconds / 3600
    return hours


def _lines(path: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset
