"""List the members of a zip, without unpacking."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from files.archive_errors import ArchiveError
from files.capped import CappedFile
from files.locators import LOCAL_HEADER, LOCAL_SIGNATURE, Locator, ZipLocator
from files.member_names import plain_name
from files.picture_formats import HEAD_BYTES, UNKNOWN, format_by_name, format_of

MIN_DIRECTORY_LIMIT_BYTES = 2**22  # always allowed: the directory of some 50,000 names

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800  # flag bits
_DESCRIPTOR_BYTES = (0, 12, 16, 20, 24)  # behind a streamed member: with or without signature, sizes of 4 or 8 bytes
_END = struct.Struct("<4s4xHH8xH")  # signature, entries on this disk, entries in all, length of the comment


def list_zip(root: Path, pin: int) -> Iterator[Locator]:
    """Yield the files of a zip.

    A directory larger than a quarter of the zip is refused unread: a million empty members would fill the memory.
    """
    num_bytes = root.stat().st_size
    with (
        CappedFile(root, max(MIN_DIRECTORY_LIMIT_BYTES, num_bytes // 4)) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        members = sorted(archive.infolist(), key=attrgetter("header_offset"))
        if sum(member.compress_size for member in members) > num_bytes:
            raise ArchiveError(f"{root}: its members claim more bytes than the zip has; refused")
        _check_end(root, stream, len(members), len(archive.comment))
        _check_layout(root, stream, members, archive.start_dir)
    for member in members:
        name = plain_name(root, member.orig_filename)
        mode = member.external_attr >> 16  # of Unix; 0 if the zip was made on another system
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{root}: {name} is a link, a device or a FIFO; refused")
        if member.orig_filename.endswith("/"):
            if member.file_size:
                raise ArchiveError(f"{root}: {name} has the name of a folder, but content; pack it again")
            continue
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise ArchiveError(f"{root}: {name} is encrypted or not compressed by deflate; pack it again")
        locator = ZipLocator(
            container=str(root),
            member=name,
            size=member.file_size,
            pin=pin,
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


def _check_end(root: Path, stream: CappedFile, num_members: int, comment_bytes: int) -> None:
    """Raise ArchiveError unless the zip's last bytes are an end record that counts as many members as its directory."""
    stream.seek(-_END.size - comment_bytes, os.SEEK_END)
    signature, _, num_entries, said_bytes = _END.unpack(stream.read(_END.size))
    if signature != b"PK\x05\x06" or said_bytes != comment_bytes:
        raise ArchiveError(f"{root}: bytes follow the end of the zip, or it is cut short; fetch it again")
    if num_entries not in (num_members & 0xFFFF, 0xFFFF):  # 65535: the number is in another record, or is this one
        raise ArchiveError(
            f"{root}: its end record counts {num_entries} members, its directory names {num_members}; fetch it again"
        )


def _check_layout(root: Path, stream: CappedFile, members: list[zipfile.ZipInfo], directory: int) -> None:
    """Raise ArchiveError unless the members, each under the name in the directory, fill the zip up to its directory.

    So no member can be renamed, lost or listed twice by a damaged directory, nor be hidden before, between or behind
    the others. Sizes and checksums are compared when a member is read.
    members: in the order of their offsets.
    directory: its offset.
    """
    end, gaps = 0, (0,)
    for member in members:
        _check_gap(root, end, member.header_offset, gaps)
        end, gaps = _local_end(root, stream, member)
    _check_gap(root, end, directory, gaps)


def _check_gap(root: Path, end: int, start: int, gaps: tuple[int, ...]) -> None:
    if start - end not in gaps:
        problem = "belong to no member" if start > end else "are claimed twice"
        raise ArchiveError(
            f"{root}: its bytes {min(start, end)} to {max(start, end)} {problem}: it is damaged, or joined to another "
            "file; fetch it or pack it again"
        )


def _local_end(root: Path, stream: CappedFile, member: zipfile.ZipInfo) -> tuple[int, tuple[int, ...]]:
    """Return the offset behind a member's content, and how many bytes may follow before the next member.

    Raises ArchiveError if its local header has another name than the directory.
    """
    name = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
    head = os.pread(stream.fileno(), LOCAL_HEADER.size + len(name), member.header_offset)
    signature, flags, name_bytes, extra_bytes = LOCAL_HEADER.unpack(head[: LOCAL_HEADER.size])
    is_same = signature == LOCAL_SIGNATURE and name_bytes == len(name) and head[LOCAL_HEADER.size :] == name
    if not is_same or (not name.isascii() and (flags ^ member.flag_bits) & _UTF8):
        raise ArchiveError(
            f"{root}: its directory names {member.orig_filename[:80]!a} at byte {member.header_offset}, where another "
            "member or none begins; fetch it again"
        )
    end = member.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes + member.compress_size
    return end, _DESCRIPTOR_BYTES if flags & _STREAMED else (0,)
