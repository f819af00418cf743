"""Streams that refuse to give many bytes at once, so that a hostile header cannot fill the memory."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

from files.archive_errors import ArchiveError

MAX_HEADER_BYTES = 2**20  # of a tar: tarfile reads long names and extended headers into memory whole


class CappedFile(io.BufferedReader):
    """A file that gives at most `limit` bytes at once. Contents are skipped by seeking, so only headers are read."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(io.FileIO(path))
        self._path = path
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        num_bytes = os.fstat(self.fileno()).st_size - self.tell() if size in (None, -1) else size
        if not 0 <= num_bytes <= self._limit:
            raise ArchiveError(f"{self._path} has headers of {num_bytes} bytes, more than {self._limit}; refused")
        return super().read(num_bytes)


class CappedGzip(gzip.GzipFile):
    """An inflated stream that gives at most MAX_HEADER_BYTES at once. Seeking forward needs no memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise ArchiveError(f"{self.name} has headers of {size} bytes, more than {MAX_HEADER_BYTES}; refused")
        return super().read(size)


class _KeepsHeaders:
    """Keep what tarfile reads, which is headers, to check more of them than it does.

    headers: bytes read since it was last emptied; None to keep nothing.
    """

    headers: bytearray | None = None

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        if self.headers is not None and size != 1:  # one byte, before a header, shows that the file is long enough
            self.headers += block
            if len(self.headers) > 4 * MAX_HEADER_BYTES:
                raise ArchiveError(f"{self.name} has headers of more than {4 * MAX_HEADER_BYTES} bytes; refused")
        return block


class TarStream(_KeepsHeaders, CappedFile):
    """A plain tar for tarfile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MAX_HEADER_BYTES)


class GzipTarStream(_KeepsHeaders, CappedGzip):
    """A .tar.gz for tarfile, inflated."""
