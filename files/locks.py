"""Exclusive locks on files, between processes of one machine, or of several where a shared folder supports locks."""

from __future__ import annotations

import fcntl
import time
from typing import IO

_POLL_SECONDS = 0.05


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
