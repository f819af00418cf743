"""Writing of checkpoints in the background of a training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jobs.runs.checkpoints import Snapshot, write_checkpoint


class CheckpointWriter:
    """Write checkpoints to one folder in a thread, one at a time.

    folder: of one training's checkpoints.
    on_commit: called in the thread with each committed checkpoint.
    is_held: see `write_checkpoint`.

    An error of the thread is raised by the next call of any method.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_commit: Callable[[Path], None] = lambda checkpoint: None,
        is_held: Callable[[Path], bool] = lambda checkpoint: False,
    ) -> None:
        self._folder = folder
        self._on_commit = on_commit
        self._is_held = is_held
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future | None = None

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, once the previous one is committed."""
        self.wait()
        self._written = self._thread.submit(self._write, snapshot)

    def wait(self) -> None:
        """Wait until the last snapshot is committed."""
        if self._written is not None:
            written, self._written = self._written, None
            written.result()

    def check(self) -> None:
        """Raise the thread's error, if it has failed. This does not wait."""
        if self._written is not None and self._written.done():
            self.wait()

    def close(self) -> None:
        """Wait until the last snapshot is committed, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, snapshot: Snapshot) -> None:
        self._on_commit(write_checkpoint(self._folder, snapshot, is_held=self._is_held))
