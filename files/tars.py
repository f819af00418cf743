"""List the members of a .tar, of a .tar.gz, and of tars inside these, without unpacking."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from files.archive_errors import DAMAGE, ArchiveError
from files.capped import GzipTarStream, TarStream
from files.extended_headers import are_whole
from files.locators import GzipTarLocator, Locator, TarLocator
from files.member_names import plain_name
from files.picture_formats import HEAD_BYTES, format_by_name, format_of
from files.pins import check_pin

MAX_EMPTY_MEMBERS = 50_000  # including folders; a broken or hostile archive has more
MAX_GZIP_RATIO = 50  # pictures hardly shrink; gzip can inflate by a factor of 1000
MIN_GZIP_LIMIT_BYTES = 2**28  # always allowed: inflating them takes about a second
MAX_USUAL_PADDING = 2 * 10_240 + tarfile.BLOCKSIZE  # zeros fill a record of 20 blocks; after `tar -A` one more
MAX_PADDING = 2**20 + tarfile.BLOCKSIZE  # with the largest records that are accepted

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


def list_tar(root: Path, pin: int) -> Iterator[Locator]:
    """Yield the files of a plain tar."""
    with TarStream(root) as stream:
        for name, member, header_crc, picture in _members(root, stream, root.stat().st_size):
            yield TarLocator(str(root), name, member.size, pin, member.offset_data, header_crc, picture=picture)


def list_gzip_tar(root: Path, pin: int) -> Iterator[Locator]:
    """Yield the files of a .tar.gz, which is inflated once, whole."""
    limit = inflated_limit(root)
    with GzipTarStream(root) as stream:
        for name, member, header_crc, picture in _members(root, stream, limit):
            yield GzipTarLocator(str(root), name, member.size, pin, member.offset_data, header_crc, picture=picture)
        while stream.read(2**16):  # beyond the end of the tar: gzip's checksum of the whole is at its end
            if stream.tell() > limit:
                raise ArchiveError(f"{root} inflates to more than {limit} bytes; refused")


def list_inner(container: Path, tars: list[TarLocator]) -> Iterator[Locator]:
    """Yield the files of tars inside one .tar or .tar.gz, as <tar>/<file>, in one pass forward."""
    is_gzip = isinstance(tars[0], GzipTarLocator)
    with GzipTarStream(container) if is_gzip else TarStream(container) as stream:
        for tar in sorted(tars, key=lambda tar: tar.offset):
            try:
                stream.seek(tar.offset)
                members = _members(container / tar.member, stream, tar.offset + tar.size)
                for name, member, header_crc, picture in members:
                    inner = f"{tar.member}/{name}"
                    yield type(tar)(
                        tar.container, inner, member.size, tar.pin, member.offset_data, header_crc, picture=picture
                    )
            except ArchiveError:
                raise
            except DAMAGE as error:
                raise ArchiveError(f"{container}: {tar.member} is damaged or no tar ({error})") from error
    check_pin(container, tars[0].pin)


def _members(
    root: Path, stream: TarStream | GzipTarStream, limit: int
) -> Iterator[tuple[str, tarfile.TarInfo, int, str]]:
    """Yield plain name, header, CRC-32 of the header's block, and format (see `Locator.picture`) of each regular file.

    limit: offset in bytes that no member may exceed. Each member's end is checked before its content is skipped.
    """
    num_empty = 0
    start = end = stream.tell()
    stream.headers = bytearray()
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
            _check_name(root, member, bytes(stream.headers[: -tarfile.BLOCKSIZE]))
            if member.isfile():
                header_crc = zlib.crc32(stream.headers[-tarfile.BLOCKSIZE :])
                yield name, member, header_crc, _picture(stream, name, member)
            stream.headers.clear()
        stream.headers = None
        _check_padding(root, stream, start, end, limit)


def _picture(stream: TarStream | GzipTarStream, name: str, member: tarfile.TarInfo) -> str:
    """Return the format of a picture by its first bytes, if its name tells none."""
    if format_by_name(name) or not member.size:
        return ""
    stream.seek(member.offset_data)
    return format_of(stream.read(min(HEAD_BYTES, member.size)))


def _check_name(root: Path, member: tarfile.TarInfo, extended: bytes) -> None:
    """Raise ArchiveError if a member has no name, or if an extended header, which may hold its name, is damaged."""
    if not are_whole(extended) or (member.isfile() and not member.name):
        raise ArchiveError(
            f"{root} is damaged at byte {member.offset}: a header is not whole, so the name of a member is lost; "
            "fetch it again"
        )


def _check_padding(root: Path, stream: TarStream | GzipTarStream, start: int, end: int, limit: int) -> None:
    """Raise ArchiveError unless a tar's last member is followed by zeros alone, and by no more than fill a record.

    tarfile takes a zeroed or damaged header for the end, and all later members would be missing without an error. So
    would the members of a second tar behind the first, and those of a file that is zeros where it is not yet fetched.
    start: offset of the tar in the stream.
    end: offset behind its last member.
    limit: offset that the tar does not exceed.
    """
    stream.seek(end)
    num_zeros = 0
    while num_zeros <= MAX_PADDING and (block := stream.read(min(2**16, limit - end - num_zeros))):
        if rest := block.lstrip(b"\0"):
            _refuse_bytes(root, end, end + num_zeros + len(block) - len(rest))
        num_zeros += len(block)
    if num_zeros < tarfile.BLOCKSIZE:
        raise ArchiveError(f"{root} is damaged or cut short at byte {end}; fetch it again")
    if not _is_padding(num_zeros, end + num_zeros - start):
        raise ArchiveError(
            f"{root}: its last member ends at byte {end}, and more zeros follow than a tar is padded with, so members "
            "may be missing; fetch it again, or pack it again if it is whole"
        )


def _refuse_bytes(root: Path, end: int, position: int) -> None:
    """Raise ArchiveError for the byte at `position` behind the last member, which is not zero."""
    if position < end + tarfile.BLOCKSIZE:
        raise ArchiveError(f"{root} is damaged or cut short at byte {end}; fetch it again")
    raise ArchiveError(
        f"{root}: the tar ends at byte {end}, but byte {position} is not zero: a part of it is zeroed, or another tar "
        "was joined to it; fetch it again, or put the tars side by side into one folder"
    )


def _is_padding(num_zeros: int, tar_bytes: int) -> bool:
    """Return whether a tar of `tar_bytes` may end with that many zeros: usual ones, or of a record of 2^n blocks."""
    records = (record for power in range(12) if tar_bytes % (record := tarfile.BLOCKSIZE << power) == 0)
    return num_zeros <= MAX_USUAL_PADDING or any(num_zeros <= record + tarfile.BLOCKSIZE for record in records)
