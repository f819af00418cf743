"""Exclusive locks on files, between the processes of a machine and across a shared folder that supports them."""

from __future__ import annotations

import fcntl
import time
from typing import IO

_POLL_SECONDS = 0.05


def lock_file(file: IO | int, *, timeout_seconds: float | None = None) -> bool:
    """Lock an open file, for as long as it stays open, against every other process that locks it.

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
