"""The files of a folder, .zip, .tar or .tar.gz: listed and read one by one, and never unpacked."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from files.durable import durable_file
from files.errors import UserError

MAX_MEMBER_BYTES = 64 * 2**20
MAX_NAME_BYTES = 1024
MAX_HEADER_BYTES = 2**20  # of a tar: long names and extended headers, which tarfile reads into memory whole
MAX_EMPTY_MEMBERS = 50_000  # folders among them; more is a broken or hostile archive
MAX_GZIP_RATIO = 50  # pictures hardly shrink; gzip can inflate 1000 times
MIN_GZIP_LIMIT_BYTES = 2**28  # inflating as much as this takes about a second, whatever the ratio
MIN_DIRECTORY_LIMIT_BYTES = 2**22  # of a zip: some 50,000 names

_BLOCK_BYTES = 2**20
_SKIPPED = {"__MACOSX", "Thumbs.db"}
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python marks bytes that are not UTF-8
_TAR_TYPES = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
}
_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1  # zip flag bit
# What tarfile, zipfile and zlib raise on damaged input; RecursionError on a long chain of extended headers
_DAMAGE = (
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
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, 22 bytes that the directory repeats, length of name, of extra


class ArchiveError(UserError):
    """A folder or archive that cannot be read, or must not be. The message names it and what is wrong."""


class MemberError(ArchiveError):
    """One file of a folder or archive that cannot be read; the others can. `reason` is short and names no file."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(member, reason)  # both, so that the error survives pickling
        self.member = member
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.member}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Locator:
    """Where one file lies. Small and picklable: `read` needs nothing else, in any process that sees the same disk.

    container: absolute path of the folder or archive. member: name inside it. size: bytes, as the container claims.
    """

    container: str
    member: str
    size: int

    def content(self) -> bytes:
        """The bytes: at most `size` of them, or a single one more where the claim was too small."""
        raise NotImplementedError

    def changed_ns(self) -> int:
        """When what holds the bytes, the archive or the file itself, was last changed, in nanoseconds."""
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
    """A member of a plain tar. offset: of its first byte in the tar."""

    offset: int

    def content(self) -> bytes:
        return self._content_of(self.container)

    def _content_of(self, tar: str) -> bytes:
        with Path(tar).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class GzipTarLocator(TarLocator):
    """A member of a .tar.gz. offset: in the inflated tar. Reading inflates all that lies before it: see `inflate`."""

    def content(self) -> bytes:
        with gzip.open(self.container) as file:
            file.seek(self.offset)
            return file.read(self.size)

    def within(self, tar: Path) -> InflatedLocator:
        """The same member in the tar that its archive was inflated to."""
        return InflatedLocator(self.container, self.member, self.size, self.offset, str(tar))


@dataclass(frozen=True, slots=True)
class InflatedLocator(TarLocator):
    """A member of a .tar.gz which `inflate` has written to a plain tar. tar: its path."""

    tar: str

    def content(self) -> bytes:
        return self._content_of(self.tar)


@dataclass(frozen=True, slots=True)
class ZipLocator(Locator):
    """A member of a zip. offset: of its local header; packed: its stored bytes; method: 0 or 8 (deflate); crc: CRC-32.

    All from the zip's directory, so that reading one member does not parse the names of all others again.
    """

    offset: int
    packed: int
    method: int
    crc: int

    def content(self) -> bytes:
        with Path(self.container).open("rb") as file:
            file.seek(self.offset)
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise zlib.error("no member starts here")
            file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
            content = file.read(self.packed)
        if self.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        if zlib.crc32(content) != self.crc:
            raise zlib.error("checksum differs")
        return content


@dataclass(frozen=True)
class Tree:
    """What `open_tree` found. kind: "folder", "zip", "tar" or "tar.gz"; entries: by relative name, in bytes order."""

    root: Path
    kind: str
    entries: Mapping[str, Locator]


def open_tree(root: Path) -> Tree:
    """List the files of a folder, or of a .zip, .tar or .tar.gz, which its first bytes tell apart and not its name.

    Left out: hidden files and folders, `__MACOSX`, `Thumbs.db`. In a folder links are followed, since its owner laid
    them; archives come from strangers, so links in them are refused, and so are devices, FIFOs, absolute paths, `..`,
    backslashes and over-long names. Cost: a zip's directory; a header per member of a tar; a .tar.gz is inflated once,
    whole. Raises ArchiveError if there is nothing to read, or if anything is refused.
    """
    root = root.absolute()
    if not root.exists():
        raise ArchiveError(f"{root} does not exist; set root to a folder, .zip, .tar or .tar.gz")
    kind = "folder" if root.is_dir() else archive_kind(root)
    if kind is None:
        raise ArchiveError(f"{root} is neither a folder nor a .zip, .tar or .tar.gz (judged by its first bytes)")
    try:
        entries = _in_bytes_order(root, _LISTERS[kind](root))
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise ArchiveError(f"{root} is damaged or cut short ({error}); fetch it again") from error
    if not entries:
        raise ArchiveError(f"{root} holds no files")
    return Tree(root, kind, entries)


def open_inner(tars: Iterable[Locator]) -> Iterator[Locator]:
    """The files of tars that are files of a tree themselves, read in place; in an archive they are named <tar>/<file>.

    What holds the tars is a folder, a tar or a .tar.gz, which is inflated once, whole. In a zip their members could not
    be found again without inflating, so there they are refused. Raises ArchiveError as `open_tree` does.
    """
    containers: dict[str, list[Locator]] = {}
    for tar in tars:
        containers.setdefault(tar.container, []).append(tar)
    for container, inner in containers.items():
        for tar in (tar for tar in inner if isinstance(tar, FileLocator)):
            yield from open_tree(Path(container) / tar.member).entries.values()
        packed = [tar for tar in inner if isinstance(tar, TarLocator)]
        if packed:
            yield from _list_inner(Path(container), packed)
        if others := [tar.member for tar in inner if not isinstance(tar, FileLocator | TarLocator)]:
            raise ArchiveError(f"{container}: {others[0]} is a tar inside a zip; unpack the zip, the tars may stay")


def _list_inner(container: Path, tars: list[TarLocator]) -> Iterator[Locator]:
    """All of one container, in one pass forward."""
    is_gzip = isinstance(tars[0], GzipTarLocator)
    with _CappedGzip(container) if is_gzip else _CappedFile(container, MAX_HEADER_BYTES) as stream:
        for tar in sorted(tars, key=lambda tar: tar.offset):
            try:
                stream.seek(tar.offset)
                for name, member in _tar_members(container / tar.member, stream, tar.offset + tar.size):
                    yield type(tar)(tar.container, f"{tar.member}/{name}", member.size, member.offset_data)
            except ArchiveError:
                raise
            except _DAMAGE as error:
                raise ArchiveError(f"{container}: {tar.member} is damaged or no tar ({error})") from error


def archive_kind(path: Path) -> str | None:
    """ "zip", "tar" or "tar.gz" by the file's first bytes; None if it is something else."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz" if _is_tar(_inflated_head(path)) else None
    return "tar" if _is_tar(head) else None


def read(locator: Locator, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """The bytes of one file; its claimed size is compared with `max_bytes` before anything is read.

    Raises MemberError if it is too large, damaged, or not as long as listed; OSError if the disk fails, which is not
    the picture's fault.
    """
    if max(locator.size, getattr(locator, "packed", 0)) > max_bytes:
        raise MemberError(locator.member, "file too large")
    try:
        content = locator.content()
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise MemberError(locator.member, "damaged in its archive") from error
    if len(content) != locator.size:
        raise MemberError(locator.member, "not as long as listed")
    return content


def read_many(locators: Iterable[Locator], max_bytes: int = MAX_MEMBER_BYTES) -> Iterator[bytes | MemberError]:
    """The bytes of each file, in the order given; in place of an unreadable one, the MemberError that `read` raises.

    A .tar.gz among them is inflated once for the whole call, and the bytes of its members are held until they are
    asked for: pass the files of one shard, not of a data set. All else is read one by one.
    """
    locators = list(locators)
    held = _read_gzip_members(locators, max_bytes)
    for locator in locators:
        yield held.pop(locator) if locator in held else _read_or_error(locator, max_bytes)


def inflate(archive: Path, place: Path) -> Iterator[int]:
    """Write the tar inside a .tar.gz to `place`, which appears there once it is whole; yields the bytes so far.

    Raises ArchiveError if the archive is damaged or inflates to more than `open_tree` allows.
    """
    limit = _inflated_limit(archive)
    try:
        with gzip.open(archive) as packed, durable_file(place) as tar:
            while block := packed.read(_BLOCK_BYTES):
                if tar.tell() + len(block) > limit:
                    raise ArchiveError(f"{archive} inflates to more than {limit} bytes; refused")
                tar.write(block)
                yield tar.tell()
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise ArchiveError(f"{archive} is damaged or cut short ({error}); fetch it again") from error


def _read_or_error(locator: Locator, max_bytes: int) -> bytes | MemberError:
    try:
        return read(locator, max_bytes)
    except MemberError as error:
        return error


def _read_gzip_members(locators: list[Locator], max_bytes: int) -> dict[Locator, bytes]:
    """What one pass forward over each .tar.gz yields; the unreadable are left out."""
    members = {locator for locator in locators if isinstance(locator, GzipTarLocator) and locator.size <= max_bytes}
    held: dict[Locator, bytes] = {}
    for container in sorted({member.container for member in members}):
        wanted = sorted((m for m in members if m.container == container), key=lambda member: member.offset)
        with gzip.open(container) as file:
            try:
                for member in wanted:
                    file.seek(member.offset)
                    content = file.read(member.size)
                    if len(content) == member.size:
                        held[member] = content
            except (EOFError, zlib.error, gzip.BadGzipFile):
                continue  # the rest of this container is damaged: read alone, each says so under its own name
    return held


def _in_bytes_order(root: Path, found: Iterable[Locator]) -> dict[str, Locator]:
    entries: dict[str, Locator] = {}
    for locator in found:
        if entries.setdefault(locator.member, locator) is not locator:
            raise ArchiveError(f"{root} holds {locator.member} twice")
    return {name: entries[name] for name in sorted(entries)}  # by code point, which is the order of the UTF-8 bytes


def _plain_name(root: Path, name: str) -> str:
    """The name without `./` and doubled slashes; raises ArchiveError for what no data set needs and an attack does."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    refused = {
        "is an absolute path": name.startswith("/") or _DRIVE.match(name),
        "leads out with ..": ".." in parts,
        "has a backslash": "\\" in name,
        "has a control character": _CONTROL.search(name),
        "is not UTF-8": _SURROGATE.search(name),
        f"is longer than {MAX_NAME_BYTES} bytes": len(name.encode(errors="replace")) > MAX_NAME_BYTES,
    }
    for why, is_so in refused.items():
        if is_so:
            raise ArchiveError(f"{root}: the name {name[:80]!a} {why}; refused")
    return "/".join(parts)


def _is_skipped(name: str) -> bool:
    return any(part.startswith(".") or part in _SKIPPED for part in name.split("/"))


def _list_folder(root: Path) -> Iterator[Locator]:
    return _walk(root, root, "", frozenset())


def _walk(root: Path, folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[Locator]:
    """The files under one folder; `above` holds the identities of the folders that led here."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ArchiveError(f"{folder} is a link to a folder that contains it")
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_skipped(entry.name):
                continue
            name = _plain_name(root, prefix + entry.name)
            if entry.is_dir():
                yield from _walk(root, folder / entry.name, f"{name}/", above | {identity})
            elif entry.is_file():
                yield FileLocator(str(root), name, entry.stat().st_size)
            else:
                raise ArchiveError(f"{root}: {name} is a broken link or not a regular file; remove it")


def _list_tar(root: Path) -> Iterator[Locator]:
    with _CappedFile(root, MAX_HEADER_BYTES) as stream:
        for name, member in _tar_members(root, stream, root.stat().st_size):
            yield TarLocator(str(root), name, member.size, member.offset_data)


def _list_gzip_tar(root: Path) -> Iterator[Locator]:
    limit = _inflated_limit(root)
    with _CappedGzip(root) as stream:
        for name, member in _tar_members(root, stream, limit):
            yield GzipTarLocator(str(root), name, member.size, member.offset_data)
        while stream.read(2**16):  # past the tar's end, up to gzip's own checksum of the whole
            if stream.tell() > limit:
                raise ArchiveError(f"{root} inflates to more than {limit} bytes; refused")


def _inflated_limit(root: Path) -> int:
    return max(MIN_GZIP_LIMIT_BYTES, MAX_GZIP_RATIO * root.stat().st_size)


def _tar_members(root: Path, stream: io.BufferedIOBase, limit: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Plain name and header of each regular file, whose end is checked against `limit` before it is skipped over."""
    end = num_empty = 0
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # tarfile keeps every header: gigabytes for a data set of millions
            name = _plain_name(root, member.name)
            if not (member.isdir() or (member.isfile() and not member.issparse())):
                raise ArchiveError(f"{root}: {name} is {_TAR_TYPES.get(member.type, 'no plain file')}; refused")
            num_bytes = member.size if member.isfile() else 0
            num_empty += num_bytes == 0
            if num_empty > MAX_EMPTY_MEMBERS:
                raise ArchiveError(f"{root} holds more than {MAX_EMPTY_MEMBERS} empty members; refused")
            if member.size < 0 or member.offset_data < end:  # else tarfile would go round in circles
                raise ArchiveError(f"{root}: {name} claims an impossible size; refused")
            end = member.offset_data + -(-num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if end > limit:
                raise ArchiveError(f"{root}: {name} claims {member.size} bytes, more than there can be; refused")
            if member.isfile() and not _is_skipped(name):
                yield name, member
        # tarfile takes a damaged header for the end, and what follows would be missing without a word
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ArchiveError(f"{root} is damaged or cut short at byte {end}; fetch it again")


def _list_zip(root: Path) -> Iterator[Locator]:
    """A directory that outweighs its files is refused unread: a million empty members would fill the memory."""
    num_bytes = root.stat().st_size
    with (
        _CappedFile(root, max(MIN_DIRECTORY_LIMIT_BYTES, num_bytes // 4)) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        members = archive.infolist()
    if sum(member.compress_size for member in members) > num_bytes:
        raise ArchiveError(f"{root}: its members claim more bytes than the zip has; refused")
    if not all(0 <= member.header_offset < num_bytes for member in members):
        raise ArchiveError(f"{root}: its directory points outside the zip; fetch it again")
    for member in members:
        name = _plain_name(root, member.orig_filename)
        mode = member.external_attr >> 16  # of Unix; 0 if the zip was made elsewhere
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{root}: {name} is a link, a device or a FIFO; refused")
        if member.is_dir() or _is_skipped(name):
            continue
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _ZIP_METHODS:
            raise ArchiveError(f"{root}: {name} is encrypted or not compressed by deflate; pack it again")
        yield ZipLocator(
            container=str(root),
            member=name,
            size=member.file_size,
            offset=member.header_offset,
            packed=member.compress_size,
            method=member.compress_type,
            crc=member.CRC,
        )


class _CappedFile(io.BufferedReader):
    """A file that refuses to give more than `limit` bytes at once: headers must be small, and contents are skipped."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(io.FileIO(path))
        self._path = path
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size in (None, -1) else size
        if not 0 <= wanted <= self._limit:
            raise ArchiveError(f"{self._path} has headers of {wanted} bytes, more than {self._limit}; refused")
        return super().read(wanted)


class _CappedGzip(gzip.GzipFile):
    """The same for an inflated stream; moving over the contents needs no memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise ArchiveError(f"{self.name} has headers of {size} bytes, more than {MAX_HEADER_BYTES}; refused")
        return super().read(size)


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _inflated_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(512)
    except (OSError, EOFError, zlib.error):
        return b""


_LISTERS = {"folder": _list_folder, "zip": _list_zip, "tar": _list_tar, "tar.gz": _list_gzip_tar}
