"""Pins: proofs that a file is still the one that was listed.

A listing keeps names and offsets. They are wrong for a file that is overwritten or replaced afterwards. So a listing
also keeps a pin of the file, and every read compares it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from files.archive_errors import ArchiveError

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE}


class ChangedFileError(ArchiveError):
    """A file or an archive is no longer the one that was listed. No further file is read from it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} has changed since it was listed; make sure that no program writes to it, and run the command "
            "again"
        )


def pin_of(status: os.stat_result) -> int:
    """Return 64 bits of a digest of a file's size, time of modification and time of change.

    The time of change (`st_ctime_ns`) is set by the system at every change, also when a program restores the time of
    modification. Inode and device are left out, because they differ between machines that share a file system.
    """
    state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return int.from_bytes(hashlib.blake2b(state.encode(), digest_size=8).digest())


def check_pin(path: Path, pin: int) -> None:
    """Raise ChangedFileError if a file has another pin or is gone."""
    with _gone_is_changed(path):
        found = pin_of(path.stat())
    if found != pin:
        raise ChangedFileError(str(path))


@contextmanager
def open_pinned(path: Path, pin: int) -> Iterator[BinaryIO]:
    """Open a file for reading, and compare its pin after the reading, so that a change meanwhile is noticed as well.

    Raises ChangedFileError if the file has another pin or is gone, also in place of an error that the reading raised.
    """
    with _gone_is_changed(path):
        file = path.open("rb")
    with file:
        try:
            yield file
        finally:
            if pin_of(os.fstat(file.fileno())) != pin:
                raise ChangedFileError(str(path))


@contextmanager
def _gone_is_changed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            raise ChangedFileError(str(path)) from error
        raise
