"""The lock that lets only one stage at a time run a training."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

from files.locks import is_at, lock_file
from jobs.runs.folder import RunFolder

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 0.2  # `find_holder` holds the lock for a moment, too
_UNNAMED = "another process"

Watch = Callable[[str], contextlib.AbstractContextManager[Callable[[], None]]]


def find_holder(folder: RunFolder) -> str | None:
    """Return the name of the process that holds a training's lock; None if it is free."""
    try:
        with folder.stage_lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return folder.stage_lock.read_text() or _UNNAMED


@contextlib.contextmanager
def claim_folder(folder: RunFolder, watch: Watch) -> Iterator[bool]:
    """Hold the lock of a training. While another process holds it, wait and watch.

    folder: created if it does not exist.
    watch(holder): context manager entered while another process, called `holder`, trains. It yields a function that is
        called twice a second.

    Yields whether another process has trained meanwhile.
    """
    has_waited = False
    while True:
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.stage_lock.open("a+") as lock:
            if not lock_file(lock, timeout_seconds=_LOOK_SECONDS):
                has_waited = True
                _wait_for_lock(lock, folder, watch)
            # The other process may have finished and removed the folder; then this lock protects nothing.
            if is_at(lock.fileno(), folder.stage_lock):
                _write_holder(lock)
                yield has_waited
                return


def _wait_for_lock(lock: IO[str], folder: RunFolder, watch: Watch) -> None:
    with watch(find_holder(folder) or _UNNAMED) as look:
        while not lock_file(lock, timeout_seconds=0):
            look()
            time.sleep(_POLL_SECONDS)


def _write_holder(lock: IO[str]) -> None:
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
