"""List the members of a .tar, of a .tar.gz, and of tars inside these, without unpacking."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from files.archive_errors import DAMAGE, ArchiveError
from files.capped import MAX_HEADER_BYTES, CappedFile, CappedGzip
from files.locators import GzipTarLocator, Locator, TarLocator
from files.member_names import plain_name
from files.picture_formats import HEAD_BYTES, format_by_name, format_of

MAX_EMPTY_MEMBERS = 50_000  # including folders; a broken or hostile archive has more
MAX_GZIP_RATIO = 50  # pictures hardly shrink; gzip can inflate by a factor of 1000
MIN_GZIP_LIMIT_BYTES = 2**28  # always allowed: inflating them takes about a second

_TYPES = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
}


def is_tar(head: bytes) -> bool:
    """Return whether a file with these first 512 bytes is a tar."""
    return head[257:262] == b"ustar"


def inflated_limit(archive: Path) -> int:
    """Return the number of bytes to which a .tar.gz may inflate."""
    return max(MIN_GZIP_LIMIT_BYTES, MAX_GZIP_RATIO * archive.stat().st_size)


def list_tar(root: Path) -> Iterator[Locator]:
    """Yield the files of a plain tar."""
    with CappedFile(root, MAX_HEADER_BYTES) as stream:
        for name, member, picture in _members(root, stream, root.stat().st_size):
            yield TarLocator(str(root), name, member.size, member.offset_data, picture=picture)


def list_gzip_tar(root: Path) -> Iterator[Locator]:
    """Yield the files of a .tar.gz, which is inflated once, whole."""
    limit = inflated_limit(root)
    with CappedGzip(root) as stream:
        for name, member, picture in _members(root, stream, limit):
            yield GzipTarLocator(str(root), name, member.size, member.offset_data, picture=picture)
        while stream.read(2**16):  # beyond the end of the tar: gzip's checksum of the whole is at its end
            if stream.tell() > limit:
                raise ArchiveError(f"{root} inflates to more than {limit} bytes; refused")


def list_inner(container: Path, tars: list[TarLocator]) -> Iterator[Locator]:
    """Yield the files of tars inside one .tar or .tar.gz, as <tar>/<file>, in one pass forward."""
    is_gzip = isinstance(tars[0], GzipTarLocator)
    with CappedGzip(container) if is_gzip else CappedFile(container, MAX_HEADER_BYTES) as stream:
        for tar in sorted(tars, key=lambda tar: tar.offset):
            try:
                stream.seek(tar.offset)
                for name, member, picture in _members(container / tar.member, stream, tar.offset + tar.size):
                    path = f"{tar.member}/{name}"
                    yield type(tar)(tar.container, path, member.size, member.offset_data, picture=picture)
            except ArchiveError:
                raise
            except DAMAGE as error:
                raise ArchiveError(f"{container}: {tar.member} is damaged or no tar ({error})") from error


def _members(root: Path, stream: io.BufferedIOBase, limit: int) -> Iterator[tuple[str, tarfile.TarInfo, str]]:
    """Yield plain name, header and format (see `Locator.picture`) of each regular file.

    limit: offset in bytes that no member may exceed. Each member's end is checked before its content is skipped.
    """
    end = num_empty = 0
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # tarfile keeps every header: gigabytes for a data set of millions
            name = plain_name(root, member.name)
            if not (member.isdir() or (member.isfile() and not member.issparse())):
                raise ArchiveError(f"{root}: {name} is {_TYPES.get(member.type, 'no plain file')}; refused")
            num_bytes = member.size if member.isfile() else 0
            num_empty += num_bytes == 0
            if num_empty > MAX_EMPTY_MEMBERS:
                raise ArchiveError(f"{root} holds more than {MAX_EMPTY_MEMBERS} empty members; refused")
            if member.size < 0 or member.offset_data < end:  # else tarfile would loop forever
                raise ArchiveError(f"{root}: {name} claims an impossible size; refused")
            end = member.offset_data + -(-num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if end > limit:
                raise ArchiveError(f"{root}: {name} claims {member.size} bytes, more than there can be; refused")
            if member.isfile():
                yield name, member, _picture(stream, name, member)
        # tarfile takes a damaged header for the end, and all later members would be missing without an error.
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ArchiveError(f"{root} is damaged or cut short at byte {end}; fetch it again")


def _picture(stream: io.BufferedIOBase, name: str, member: tarfile.TarInfo) -> str:
    """Return the format of a picture by its first bytes, if its name tells none."""
    if format_by_name(name) or not member.size:
        return ""
    stream.seek(member.offset_data)
    return format_of(stream.read(min(HEAD_BYTES, member.size)))
