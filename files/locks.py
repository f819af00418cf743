"""Exclusive locks on files, between processes of one machine, or of several where a shared folder supports locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from files.errors import UserError

_POLL_SECONDS = 0.05


class BusyError(UserError):
    """Another process holds a lock. The message names it."""


@contextlib.contextmanager
def hold_lock(path: Path, what: str, *, is_shared: bool = False) -> Iterator[None]:
    """Hold a lock until the context ends.

    path: the lock's file, in which the holder writes its name. It is removed at the end, and so is its folder if that
        is empty. A killed process leaves the file, and its lock is free.
    what: what the lock protects, for messages.
    is_shared: several processes may hold the lock at once, all of them with True.
    Raises BusyError at once if another process holds it.
    """
    lock = _open_locked(path, what, is_shared)
    try:
        yield
    finally:
        _remove_lock(lock, path)
        os.close(lock)


def _open_locked(path: Path, what: str, is_shared: bool) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 1000, 0).decode(errors="replace") or "another process"
                os.close(lock)
                raise BusyError(f"{holder} uses {what}; wait until it has ended, or end it") from None
            if is_at(lock, path):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return lock
            os.close(lock)


def _remove_lock(lock: int, path: Path) -> None:
    """Remove the file of a lock that this process holds, unless other processes share the lock."""
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        path.parent.rmdir()


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one that is now at a path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def lock_file(file: IO | int, *, timeout_seconds: float | None = None) -> bool:
    """Lock an open file against every other process that locks it, until the file is closed.

    file: an open file or its descriptor.
    timeout_seconds: how long to wait for another process; None waits without limit, 0 tries once.
    Returns False if another process still holds the lock.
    """
    if timeout_seconds is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    end = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
