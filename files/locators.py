"""Locators: where one file of a folder or archive is, how to read it, and the proof that it is still the same file."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from files.pins import ChangedFileError, check_pin, open_pinned, pin_of

TAR_BLOCK_BYTES = 512
LOCAL_HEADER = struct.Struct("<4s2xH18xHH")  # of a zip: signature, flags, length of name, length of extra
LOCAL_SIGNATURE = b"PK\x03\x04"
_MOST_BYTES_OF_A_HEAD = 4096  # packed; a deflate block may start with a table of some 300 bytes


@dataclass(frozen=True, slots=True)
class Locator:
    """The place of one file. Small and picklable: any process that sees the same disk can read the file with it.

    container: absolute path of the folder or archive.
    member: name inside it.
    size: bytes, as the container claims.
    pin: of the archive, or of the file itself in a folder; see `files/pins.py`.
    picture: format of a picture by its first bytes, such as "JPEG"; "" if it is none, or if its name tells a format.
    """

    container: str
    member: str
    size: int
    pin: int
    picture: str = field(default="", kw_only=True)

    @property
    def path(self) -> Path:
        """The file on disk: the archive, or the file itself in a folder."""
        return Path(self.container)

    def content(self) -> bytes:
        """Return the bytes: at most `size`, or one more where the claim was too small.

        Raises ChangedFileError if they are no longer those of the file that was listed.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise ChangedFileError if the file or its archive has changed since it was listed."""
        check_pin(self.path, self.pin)


@dataclass(frozen=True, slots=True)
class FileLocator(Locator):
    """A file of a folder."""

    @property
    def path(self) -> Path:
        return Path(self.container) / self.member

    def content(self) -> bytes:
        with open_pinned(self.path, self.pin) as file:
            return file.read(self.size + 1)


def locate_file(folder: Path, name: str) -> FileLocator:
    """Return the locator of a file of a folder, as it is now."""
    status = (folder / name).stat()
    return FileLocator(str(folder), name, status.st_size, pin_of(status))


@dataclass(frozen=True, slots=True)
class TarLocator(Locator):
    """A member of a plain tar.

    offset: of its first byte in the tar. The member's header is the block before it.
    header_crc: CRC-32 of that header, which holds name, size and time of the member.
    """

    offset: int
    header_crc: int

    def content(self) -> bytes:
        with open_pinned(self.path, self.pin) as file:
            return self.content_in(file)

    def content_in(self, tar: BinaryIO) -> bytes:
        """Return the bytes from the opened tar.

        Raises ChangedFileError if another header is before them.
        """
        tar.seek(self.offset - TAR_BLOCK_BYTES)
        if zlib.crc32(tar.read(TAR_BLOCK_BYTES)) != self.header_crc:
            raise ChangedFileError(self.container)
        return tar.read(self.size)


@dataclass(frozen=True, slots=True)
class GzipTarLocator(TarLocator):
    """A member of a .tar.gz. Reading it inflates everything before it; see `archives.inflate`.

    offset: of its first byte in the inflated tar.
    """

    def content(self) -> bytes:
        with open_pinned(self.path, self.pin) as packed, gzip.open(packed) as file:
            return self.content_in(file)

    def within(self, tar: Path) -> InflatedLocator:
        """Return the same member in the tar to which its archive was inflated."""
        return InflatedLocator(self.container, self.member, self.size, self.pin, self.offset, self.header_crc, str(tar))


@dataclass(frozen=True, slots=True)
class InflatedLocator(TarLocator):
    """A member of a .tar.gz that `archives.inflate` has written to a plain tar.

    tar: path of that tar.
    """

    tar: str

    def content(self) -> bytes:
        self.check()
        with Path(self.tar).open("rb") as file:
            return self.content_in(file)


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
        with open_pinned(self.path, self.pin) as file:
            file.seek(self.offset)
            signature, _, name_bytes, extra_bytes = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            if signature != LOCAL_SIGNATURE:
                raise zlib.error("no member starts here")
            file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
            return file.read(num_bytes)
