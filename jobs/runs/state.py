"""The state of a training, read from its run folder without a lock of its own and without any heavy library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.runs.claim import find_holder
from jobs.runs.events import Event, read_newest_events
from jobs.runs.folder import RunFolder, list_checkpoints
from jobs.runs.note import read_note

State = Literal["starting", "running", "stopping", "stopped", "failed", "trained"]


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The state of one training.

    folder: its run folder.
    generator: its name.
    state: "starting", "running" and "stopping" if a process holds its lock; "trained" if the weights are complete and
        no stage has taken them; else "failed" or "stopped".
    holder: the process that holds the lock, with its host; None if there is none.
    step: of the last event while it runs, else of the newest checkpoint, from which it goes on.
    steps: of the whole training; None if its stage has not told.
    logged_step: of the last event. A training that was killed may have been further than its newest checkpoint.
    losses: `<phase>/<term>` -> mean of the last event.
    images_per_second: of the last event.
    seconds_left: at the pace of the last events; None if it does not run.
    updated: Unix time of the last event, in seconds.
    error: with which the stage ended.
    """

    folder: RunFolder
    generator: str
    state: State
    holder: str | None
    step: int
    steps: int | None
    logged_step: int
    losses: Mapping[str, float]
    images_per_second: float | None
    seconds_left: float | None
    updated: float | None
    error: str | None


def read_state(folder: RunFolder) -> TrainingState:
    """Read the state of a training from its run folder. Nothing is changed."""
    holder = find_holder(folder)
    note = read_note(folder.note)
    events = read_newest_events(folder.events)
    last = events[-1] if events else None
    step = last.step if holder and last else _checkpointed_step(folder)
    error = note.error if note and not holder else None
    steps = note.steps if note else None
    return TrainingState(
        folder=folder,
        generator=folder.path.parent.name,
        state=_name_state(folder, holder, last, error),
        holder=holder,
        step=step,
        steps=steps,
        logged_step=last.step if last else step,
        losses=last.losses if last else {},
        images_per_second=last.speed.get("images_per_second") if last else None,
        seconds_left=(steps - step) * _pace(events) if holder and steps and len(events) > 1 else None,
        updated=last.time if last else None,
        error=error,
    )


def is_training(folder: RunFolder) -> bool:
    """Tell whether a folder of the storage is that of a training, which other folders there are not."""
    return folder.experiment.is_file() or folder.stage_lock.is_file()


def _name_state(folder: RunFolder, holder: str | None, last: Event | None, error: str | None) -> State:
    if holder:
        return "stopping" if folder.stop_request.exists() else "running" if last else "starting"
    if error:
        return "failed"
    return "trained" if folder.weights.is_file() else "stopped"


def _checkpointed_step(folder: RunFolder) -> int:
    names = [checkpoint.name for checkpoint in list_checkpoints(folder.checkpoints)]
    steps = [int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name))]
    return max(steps, default=0)


def _pace(events: Sequence[Event], count: int = 20) -> float:
    """Return the seconds of one step, measured over the last events. events: at least two, of one segment."""
    first, last = events[-count:][0], events[-1]
    return (last.seconds - first.seconds) / max(last.step - first.step, 1)
