"""Copying of live checkpoints to an object store while a training runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from jobs.runs.checkpoint_store import CheckpointStore

log = logging.getLogger(__name__)

END_SECONDS = 60.0  # the longest that a training waits for its newest checkpoint when it ends or is stopped
_RETRY_SECONDS = 5.0


class CheckpointCopier:
    """Copy the newest committed checkpoint to a store, in a thread. Use it as a context manager.

    A checkpoint that is overtaken by a newer one before its copy has begun is not copied. If the store fails, a warning
    is logged once, until it works again, and the newest checkpoint is tried every few seconds; training goes on.

    Without an error the context waits at its end for the newest checkpoint, END_SECONDS at most, and logs if that was
    not enough.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: Path | None = None  # to be copied next
        self._in_progress: Path | None = None
        self._copied: Path | None = None  # the last one that was copied
        self._problem = ""  # of the last attempt
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoint-copier", daemon=True)

    def __enter__(self) -> CheckpointCopier:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # After an error the other processes wait for this one's end, and the storage still has the checkpoint.
        seconds = END_SECONDS if kind is None else 0.0
        with self._changed:
            is_done = self._changed.wait_for(lambda: not (self._waiting or self._in_progress), seconds)
            newest = self._waiting or self._in_progress
            self._is_closed = True
            self._changed.notify_all()
        if not is_done:
            reason = self._problem or ("an error came first" if kind else f"{seconds:g} s were not enough")
            log.warning("%s was not brought up to checkpoint %s (%s)", self._store.url, newest, reason)

    def copy(self, checkpoint: Path) -> None:
        """Copy a committed checkpoint next, instead of the one that waits."""
        with self._changed:
            self._waiting = checkpoint
            self._changed.notify_all()

    def is_held(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is being copied, and must not be removed."""
        return checkpoint == self._in_progress

    def _run(self) -> None:
        while checkpoint := self._wait_for_next():
            problem = self._attempt(checkpoint)
            if problem and not self._problem and not self._is_closed:
                log.warning(
                    "%s; training goes on, and %s gets the newest checkpoint when it can", problem, self._store.url
                )
            with self._changed:
                self._in_progress = None
                self._problem = problem
                if problem and self._waiting is None:
                    self._waiting = checkpoint
                self._changed.notify_all()
                if problem:
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_SECONDS)

    def _wait_for_next(self) -> Path | None:
        """Return the checkpoint to copy, which is in progress from now on; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._waiting)
            if self._is_closed:
                return None
            self._in_progress = self._waiting
            self._waiting = None
            return self._in_progress

    def _attempt(self, checkpoint: Path) -> str:
        """Copy a checkpoint and remove old ones from the store; return the problem, or ""."""
        store = self._store.with_attempts(1)  # `_run` tries again, without a warning at each attempt
        try:
            if checkpoint != self._copied:
                store.put(checkpoint, is_given_up=lambda: self._is_closed)
                self._copied = checkpoint
            store.trim(checkpoint.name)
        except Exception as error:  # clients raise errors of many kinds; none may end the training
            return str(error) or type(error).__name__
        return ""
