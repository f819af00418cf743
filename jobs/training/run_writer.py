"""Writing of a training to its run folder: by rank 0, while the writer of the other ranks does nothing."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from files.checkout import FOLDERS
from files.durable import durable_file
from files.locks import lock_file
from jobs.runs.checkpoint_copier import CheckpointCopier
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoint_writer import CheckpointWriter
from jobs.runs.checkpoints import save_weights, take_snapshot
from jobs.runs.events import EventLog, WarningsOf
from jobs.runs.folder import RunFolder
from jobs.training.step import TrainingError

log = logging.getLogger(__name__)

_LOCK_SECONDS = 60.0  # an earlier process that was given up may still be ending

Networks = Mapping[str, nn.Module]


class NullRunWriter:
    """Write nothing. These are the methods of a run writer."""

    def begin_segment(self, *, from_step: int, nodes: Sequence[str], devices: Sequence[str]) -> None:
        """Log the start of a segment, see `Segment`; nodes and devices have one name per rank."""

    def log(self, step: int, losses: Mapping[str, float], speed: Mapping[str, float]) -> None:
        """Log the figures after `step` steps, see `Event`."""

    def log_not_repeatable(self, operations: Set[str]) -> None:
        """Log operations that do not repeat to the bit."""

    def save_sample(self, step: int, draw: Callable[[], Tensor]) -> None:
        """Save a sample picture. draw(): returns it, float (3, H, W) in [-1, 1]; only called where it is saved."""

    def save_checkpoint(
        self, step: int, networks: Networks, optimizers: Mapping[str, Optimizer], progress: Mapping[str, Any]
    ) -> None:
        """Copy the state after `step` steps, and commit it in the background. progress: the state of the loop."""

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written. This does not wait."""

    def stop(self, text: str) -> None:
        """Wait until the last checkpoint is committed, and log a warning."""

    def finish(self, networks: Networks) -> None:
        """Wait until the last checkpoint is committed, and write the trained weights."""


class RunWriter(NullRunWriter):
    """Write to a run folder, of which this process holds the writer's lock."""

    def __init__(self, folder: RunFolder, events: EventLog, checkpoints: CheckpointWriter) -> None:
        self._folder = folder
        self._events = events
        self._checkpoints = checkpoints

    def begin_segment(self, *, from_step: int, nodes: Sequence[str], devices: Sequence[str]) -> None:
        self._events.segment(from_step=from_step, world_size=len(nodes), nodes=nodes, devices=devices)

    def log(self, step: int, losses: Mapping[str, float], speed: Mapping[str, float]) -> None:
        self._events.log(step, losses, **speed)

    def log_not_repeatable(self, operations: Set[str]) -> None:
        self._events.not_repeatable(operations)

    def save_sample(self, step: int, draw: Callable[[], Tensor]) -> None:
        save_picture(self._folder.sample(step), draw())

    def save_checkpoint(
        self, step: int, networks: Networks, optimizers: Mapping[str, Optimizer], progress: Mapping[str, Any]
    ) -> None:
        self._events.flush()
        self._checkpoints.write(take_snapshot(step, networks, optimizers, progress))

    def check(self) -> None:
        self._checkpoints.check()

    def stop(self, text: str) -> None:
        self._checkpoints.wait()
        log.warning("%s", text)

    def finish(self, networks: Networks) -> None:
        self._checkpoints.wait()
        save_weights(self._folder.weights, networks)


@contextlib.contextmanager
def open_run_writer(folder: RunFolder, store: CheckpointStore | None, rank: int) -> Iterator[NullRunWriter]:
    """Open the writer of one rank: a `RunWriter` for rank 0, one that does nothing for the others.

    folder: must exist on rank 0's machine.
    store: where checkpoints are copied to, in the background; None copies nothing.

    Raises TrainingError if the folder does not exist or another process keeps writing to it.
    """
    if rank != 0:
        yield NullRunWriter()
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock_for_writing(folder))
        events = stack.enter_context(contextlib.closing(EventLog(folder.events)))
        stack.enter_context(contextlib.closing(WarningsOf(events, FOLDERS)))
        if store is None:
            writer = CheckpointWriter(folder.checkpoints)
        else:
            copier = stack.enter_context(CheckpointCopier(store))
            writer = CheckpointWriter(folder.checkpoints, on_commit=copier.copy, is_held=copier.is_held)
        checkpoints = stack.enter_context(contextlib.closing(writer))
        yield RunWriter(folder, events, checkpoints)


@contextlib.contextmanager
def _lock_for_writing(folder: RunFolder) -> Iterator[None]:
    """Hold the writer's lock, so that a process that was given up cannot write beside its successor."""
    # The folder is not created here: on another machine's disk, the stage would wait for it in vain.
    if not folder.path.is_dir():
        raise TrainingError(
            f"{folder.path} is not there on {socket.gethostname()}; cluster.storage must be a folder that this "
            "machine, of rank 0, and the one that started the training both see under this path"
        )
    with folder.writer_lock.open("w") as lock:
        if not lock_file(lock, timeout_seconds=_LOCK_SECONDS):
            raise TrainingError(f"another process has written to {folder.path} for {_LOCK_SECONDS:g} s; end it first")
        yield


def save_picture(path: Path, picture: Tensor) -> None:
    """Write a picture, float (3, H, W) in [-1, 1], as PNG."""
    pixels = (picture.detach().cpu().numpy().transpose(1, 2, 0) + 1) * 127.5
    with durable_file(path) as file:
        Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(file, "PNG")
