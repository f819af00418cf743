"""Locators: where one file of a folder or archive is, and how to read it."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, 22 bytes that the directory repeats, length of name, of extra
_MOST_BYTES_OF_A_HEAD = 4096  # packed; a deflate block may start with a table of some 300 bytes


@dataclass(frozen=True, slots=True)
class Locator:
    """The place of one file. Small and picklable: any process that sees the same disk can read the file with it.

    container: absolute path of the folder or archive.
    member: name inside it.
    size: bytes, as the container claims.
    picture: format of a picture by its first bytes, such as "JPEG"; "" if it is none, or if its name tells a format.
    """

    container: str
    member: str
    size: int
    picture: str = field(default="", kw_only=True)

    def content(self) -> bytes:
        """Return the bytes: at most `size`, or one more where the claim was too small."""
        raise NotImplementedError

    def changed_ns(self) -> int:
        """Return the time of the last change of the file or its archive, in nanoseconds."""
        return Path(self.container).stat().st_mtime_ns


@dataclass(frozen=True, slots=True)
class FileLocator(Locator):
    """A file of a folder."""

    def content(self) -> bytes:
        with (Path(self.container) / self.member).open("rb") as file:
            return file.read(self.size + 1)

    def changed_ns(self) -> int:
        return (Path(self.container) / self.member).stat().st_mtime_ns


@dataclass(frozen=True, slots=True)
class TarLocator(Locator):
    """A member of a plain tar.

    offset: of its first byte in the tar.
    """

    offset: int

    def content(self) -> bytes:
        return self._content_of(self.container)

    def _content_of(self, tar: str) -> bytes:
        with Path(tar).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class GzipTarLocator(TarLocator):
    """A member of a .tar.gz. Reading it inflates everything before it; see `archives.inflate`.

    offset: of its first byte in the inflated tar.
    """

    def content(self) -> bytes:
        with gzip.open(self.container) as file:
            file.seek(self.offset)
            return file.read(self.size)

    def within(self, tar: Path) -> InflatedLocator:
        """Return the same member in the tar to which its archive was inflated."""
        return InflatedLocator(self.container, self.member, self.size, self.offset, str(tar))


@dataclass(frozen=True, slots=True)
class InflatedLocator(TarLocator):
    """A member of a .tar.gz that `archives.inflate` has written to a plain tar.

    tar: path of that tar.
    """

    tar: str

    def content(self) -> bytes:
        return self._content_of(self.tar)


@dataclass(frozen=True, slots=True)
class ZipLocator(Locator):
    """A member of a zip. The fields come from the zip's directory, so that reading does not parse it again.

    offset: of its local header.
    packed: stored bytes.
    method: 0 (stored) or 8 (deflate).
    crc: CRC-32 of the content.
    """

    offset: int
    packed: int
    method: int
    crc: int

    def content(self) -> bytes:
        content = self._packed(self.packed)
        if self.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        if zlib.crc32(content) != self.crc:
            raise zlib.error("checksum differs")
        return content

    def head(self, num_bytes: int) -> bytes:
        """Return the first bytes of the content. Their checksum is not compared."""
        content = self._packed(min(self.packed, _MOST_BYTES_OF_A_HEAD))
        if self.method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, num_bytes)
        return content[:num_bytes]

    def _packed(self, num_bytes: int) -> bytes:
        """Return the first stored bytes of the member."""
        with Path(self.container).open("rb") as file:
            file.seek(self.offset)
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise zlib.error("no member starts here")
            file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
            return file.read(num_bytes)
