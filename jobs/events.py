"""What a training says while it runs: losses, speed and sample pictures, on disk first, so that it waits for nobody.

Rank 0 appends to `events.jsonl` in the run's storage; whoever wants to know reads that file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from datasets.durable import durable_file


@dataclass(frozen=True, kw_only=True)
class Event:
    """Figures after `step` steps: `losses` repeat to the bit, `speed` belongs to the machine that ran."""

    step: int
    losses: dict[str, float]
    speed: dict[str, float]


class EventLog:
    """Append events to a file that only this process writes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if path.is_file():  # a killed writer may have left half a line
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, losses: Mapping[str, float], **speed: float) -> None:
        """Append one event."""
        self._file.write(json.dumps({"step": step, "losses": dict(losses), "speed": speed}) + "\n")
        self._file.flush()

    def segment(self, **facts: object) -> None:
        """Placeholder."""

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


def read_events(path: Path, *, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from a byte offset on, each with the offset behind it; a line still being written is left for later."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield Event(**json.loads(line)), offset


def losses_by_step(path: Path) -> dict[int, dict[str, float]]:
    """Every step's losses, in order; of a step that was run twice, after a restart, the later run counts."""
    events = {event.step: event.losses for event, _ in read_events(path)}
    return dict(sorted(events.items()))
