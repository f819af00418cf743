"""List the members of a zip, without unpacking."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from files.archive_errors import ArchiveError
from files.capped import CappedFile
from files.locators import Locator, ZipLocator
from files.member_names import plain_name
from files.picture_formats import HEAD_BYTES, UNKNOWN, format_by_name, format_of

MIN_DIRECTORY_LIMIT_BYTES = 2**22  # always allowed: the directory of some 50,000 names

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1  # flag bit


def list_zip(root: Path) -> Iterator[Locator]:
    """Yield the files of a zip.

    A directory larger than a quarter of the zip is refused unread: a million empty members would fill the memory.
    """
    num_bytes = root.stat().st_size
    with (
        CappedFile(root, max(MIN_DIRECTORY_LIMIT_BYTES, num_bytes // 4)) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        members = archive.infolist()
    if sum(member.compress_size for member in members) > num_bytes:
        raise ArchiveError(f"{root}: its members claim more bytes than the zip has; refused")
    if not all(0 <= member.header_offset < num_bytes for member in members):
        raise ArchiveError(f"{root}: its directory points outside the zip; fetch it again")
    for member in members:
        name = plain_name(root, member.orig_filename)
        mode = member.external_attr >> 16  # of Unix; 0 if the zip was made on another system
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{root}: {name} is a link, a device or a FIFO; refused")
        if member.is_dir():
            continue
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise ArchiveError(f"{root}: {name} is encrypted or not compressed by deflate; pack it again")
        locator = ZipLocator(
            container=str(root),
            member=name,
            size=member.file_size,
            offset=member.header_offset,
            packed=member.compress_size,
            method=member.compress_type,
            crc=member.CRC,
        )
        yield locator if format_by_name(name) else replace(locator, picture=_picture(locator))


def _picture(locator: ZipLocator) -> str:
    """Return the format of a picture by its first bytes. A damaged member may be a picture: reading it tells."""
    try:
        return format_of(locator.head(HEAD_BYTES))
    except (zlib.error, struct.error):
        return UNKNOWN
