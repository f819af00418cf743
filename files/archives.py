"""List and read the files of a folder, .zip, .tar or .tar.gz, which is never unpacked.

All names that other rooms need are importable from here. Listing is in tars.py and zips.py, locators in locators.py.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from files.archive_errors import DAMAGE, ArchiveError, MemberError
from files.durable import durable_file
from files.left_out import LeftOutFiles, describe, files_below, rule_of
from files.locators import FileLocator, GzipTarLocator, Locator, TarLocator, ZipLocator, locate_file
from files.member_names import plain_name
from files.picture_formats import HEAD_BYTES, format_by_name, format_of
from files.pins import ChangedFileError, check_pin, open_pinned, pin_of
from files.tars import inflated_limit, is_tar, list_gzip_tar, list_inner, list_tar
from files.zips import list_zip

__all__ = ["MAX_MEMBER_BYTES", "ArchiveError", "ChangedFileError", "FileLocator", "GzipTarLocator", "Locator",
           "MemberError", "TarLocator", "Tree", "archive_kind", "inflate", "locate_file", "open_inner", "open_tree",
           "read", "read_many"]  # fmt: skip

MAX_MEMBER_BYTES = 64 * 2**20

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Tree:
    """A listed folder or archive.

    root: its absolute path.
    kind: "folder", "zip", "tar" or "tar.gz".
    entries: relative name -> file, in the order of the names' bytes.
    left_out: the files that are no entries, because of their names.
    """

    root: Path
    kind: str
    entries: Mapping[str, Locator]
    left_out: LeftOutFiles


def open_tree(root: Path, *, follow_links: bool = False) -> Tree:
    """List the files of a folder, .zip, .tar or .tar.gz. The kind is told by the first bytes, not by the name.

    follow_links: whether links in a folder may lead out of it. Links that stay in the folder are always followed, and
        `root` itself may be a link.
    Files that `left_out.rule_of` names are left out and counted. Archives may come from strangers, so links in them are
    refused, and so are devices, FIFOs, absolute paths, `..`, backslashes and long names.
    Cost: one header per member of a zip or a tar; a .tar.gz is inflated once, whole.
    Raises ArchiveError if there is nothing to read or anything is refused; ChangedFileError, which is one, if an
    archive changes meanwhile.
    """
    root = root.absolute()
    if not root.exists():
        raise ArchiveError(f"{root} does not exist; set root to a folder, .zip, .tar or .tar.gz")
    kind = "folder" if root.is_dir() else archive_kind(root)
    if kind is None:
        raise ArchiveError(f"{root} is neither a folder nor a .zip, .tar or .tar.gz (judged by its first bytes)")
    left_out = LeftOutFiles()
    files = _list_folder(root, follow_links) if kind == "folder" else _list_archive(root, kind)
    entries = _in_bytes_order(root, _without_left_out(files, left_out))
    if not entries:
        if others := describe(left_out.summary()):
            raise ArchiveError(f"{root} holds no files but those that are left out: {others}")
        raise ArchiveError(f"{root} holds no files")
    return Tree(root, kind, entries, left_out)


def open_inner(tars: Iterable[Locator], left_out: LeftOutFiles) -> Iterator[Locator]:
    """Yield the files of tars that are files of a tree, without unpacking; in an archive they are named <tar>/<file>.

    left_out: receives the files that their names leave out.
    The tars may be in a folder, in a tar, or in a .tar.gz, which is inflated once, whole. Tars in a zip are refused,
    because their members cannot be found again without inflating. Raises ArchiveError as `open_tree` does.
    """
    containers: dict[str, list[Locator]] = {}
    for tar in tars:
        containers.setdefault(tar.container, []).append(tar)
    for container, inner in containers.items():
        for tar in (tar for tar in inner if isinstance(tar, FileLocator)):
            tree = open_tree(Path(container) / tar.member)
            left_out.update(tree.left_out)
            yield from tree.entries.values()
        packed = [tar for tar in inner if isinstance(tar, TarLocator)]
        if packed:
            yield from _without_left_out(list_inner(Path(container), packed), left_out)
        if others := [tar.member for tar in inner if not isinstance(tar, FileLocator | TarLocator)]:
            raise ArchiveError(f"{container}: {others[0]} is a tar inside a zip; unpack the zip, the tars may stay")


def archive_kind(path: Path) -> str | None:
    """Return "zip", "tar" or "tar.gz" by the file's first bytes; None for any other file."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz" if is_tar(_inflated_head(path)) else None
    return "tar" if is_tar(head) else None


def read(locator: Locator, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """Return the bytes of one file.

    max_bytes: limit on the claimed size, checked before anything is read.
    Raises MemberError if the file is too large, damaged, or not as long as listed; ChangedFileError if it or its
    archive has changed since it was listed; OSError if the disk fails, which is no fault of the file.
    """
    packed = locator.packed if isinstance(locator, ZipLocator) else 0
    if max(locator.size, packed) > max_bytes:
        raise MemberError(locator.member, "file too large")
    try:
        content = locator.content()
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise MemberError(locator.member, "damaged in its archive") from error
    if len(content) != locator.size:
        raise MemberError(locator.member, "not as long as listed")
    return content


def read_many(locators: Iterable[Locator], max_bytes: int = MAX_MEMBER_BYTES) -> Iterator[bytes | MemberError]:
    """Yield the bytes of each file, in the order given; for an unreadable file the MemberError that `read` raises.

    Raises ChangedFileError as `read` does.

    Each .tar.gz is inflated once for the whole call, and the bytes of its members stay in memory until they are
    yielded. So pass the files of one shard, not of a data set. All other files are read one by one.
    """
    locators = list(locators)
    held = _read_gzip_members(locators, max_bytes)
    for locator in locators:
        yield held.pop(locator) if locator in held else _read_or_error(locator, max_bytes)


def inflate(archive: Path, pin: int, place: Path) -> Iterator[int]:
    """Write the tar inside a .tar.gz to `place`, where it appears once it is whole. Yields the bytes written so far.

    pin: of the archive when it was listed.
    Raises ArchiveError if the archive is damaged or inflates to more than `open_tree` allows; ChangedFileError if it
    has another pin.
    """
    limit = inflated_limit(archive)
    try:
        with durable_file(place) as tar, open_pinned(archive, pin) as file, gzip.open(file) as packed:
            while block := packed.read(_BLOCK_BYTES):
                if tar.tell() + len(block) > limit:
                    raise ArchiveError(f"{archive} inflates to more than {limit} bytes; refused")
                tar.write(block)
                yield tar.tell()
    except ArchiveError:
        raise
    except DAMAGE as error:
        raise ArchiveError(f"{archive} is damaged or cut short ({error}); fetch it again") from error


def _read_or_error(locator: Locator, max_bytes: int) -> bytes | MemberError:
    try:
        return read(locator, max_bytes)
    except MemberError as error:
        return error


def _read_gzip_members(locators: list[Locator], max_bytes: int) -> dict[Locator, bytes]:
    """Return the contents from one pass forward over each .tar.gz; unreadable members are left out."""
    members = {locator for locator in locators if isinstance(locator, GzipTarLocator) and locator.size <= max_bytes}
    held: dict[Locator, bytes] = {}
    for container, pin in sorted({(member.container, member.pin) for member in members}):
        listed = (member for member in members if (member.container, member.pin) == (container, pin))
        inside = sorted(listed, key=lambda member: member.offset)
        with open_pinned(Path(container), pin) as packed, gzip.open(packed) as file:
            try:
                for member in inside:
                    content = member.content_in(file)
                    if len(content) == member.size:
                        held[member] = content
            except (EOFError, zlib.error, gzip.BadGzipFile):
                continue  # the rest of this container is damaged: `read` then reports each member by its name
    return held


def _without_left_out(files: Iterable[Locator], left_out: LeftOutFiles) -> Iterator[Locator]:
    """Yield the files, and add to `left_out` those that their names leave out."""
    for locator in files:
        if rule := rule_of(locator.member):
            left_out.add(rule, locator.member)
        else:
            yield locator


def _in_bytes_order(root: Path, files: Iterable[Locator]) -> dict[str, Locator]:
    entries: dict[str, Locator] = {}
    for locator in files:
        if entries.setdefault(locator.member, locator) is not locator:
            raise ArchiveError(f"{root} holds {locator.member} twice")
    return {name: entries[name] for name in sorted(entries)}  # by code point, which is the order of the UTF-8 bytes


def _list_archive(root: Path, kind: str) -> Iterator[Locator]:
    pin = pin_of(root.stat())
    try:
        yield from _LISTERS[kind](root, pin)
    except DAMAGE as error:
        check_pin(root, pin)
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"{root} is damaged or cut short ({error}); fetch it again") from error
    check_pin(root, pin)


def _list_folder(root: Path, follow_links: bool) -> Iterator[Locator]:
    return _walk(root, root, "", frozenset(), None if follow_links else root.resolve())


def _walk(
    root: Path, folder: Path, prefix: str, above: frozenset[tuple[int, int]], boundary: Path | None
) -> Iterator[Locator]:
    """Yield the files under one folder.

    prefix: the folder's name relative to `root`, with a slash at its end.
    above: device and inode of the folders on the way here, to find links that lead back up.
    boundary: resolved path of the folder that links must not leave; None if they may lead anywhere.
    """
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ArchiveError(f"{folder} is a link to a folder that contains it")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if rule_of(f"{name}/" if entry.is_dir() else name):
                yield from (Locator(str(root), path, 0, pin=0) for path in files_below(root, name))
                continue
            name = plain_name(root, name)
            if boundary and entry.is_symlink():
                _check_link(root, name, boundary)
            if entry.is_dir():
                yield from _walk(root, folder / entry.name, f"{name}/", above | {identity}, boundary)
            elif entry.is_file():
                picture = "" if format_by_name(name) else _picture(folder / entry.name)
                status = entry.stat()
                yield FileLocator(str(root), name, status.st_size, pin_of(status), picture=picture)
            else:
                raise ArchiveError(f"{root}: {name} is a broken link or not a regular file; remove it")


def _check_link(root: Path, name: str, boundary: Path) -> None:
    """Raise ArchiveError for a link that leads out of the folder `boundary`."""
    target = Path(os.path.realpath(root / name))
    if target.exists() and not target.is_relative_to(boundary):
        raise ArchiveError(
            f"{root}: {name} is a link that leads out of the folder, to {target}; put the files themselves there, or "
            "set dataset.follow_links to true"
        )


def _picture(path: Path) -> str:
    """Return the format of a picture by its first bytes."""
    with path.open("rb", buffering=0) as file:
        return format_of(file.read(HEAD_BYTES))


def _inflated_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(512)
    except (OSError, EOFError, zlib.error):
        return b""


_LISTERS = {"zip": list_zip, "tar": list_tar, "tar.gz": list_gzip_tar}
