"""Errors of folders and archives."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib

from files.errors import UserError

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)
"""Errors that tarfile, zipfile and zlib raise on damaged input; RecursionError on a long chain of extended headers."""


class ArchiveError(UserError):
    """A folder or archive cannot be read, or is refused. The message names it and the problem."""


class MemberError(ArchiveError):
    """One file of a folder or archive cannot be read; the others can.

    member: its name.
    reason: a short text that names no file.
    """

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(member, reason)  # both arguments, so that the error survives pickling
        self.member = member
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.member}: {self.reason}"
