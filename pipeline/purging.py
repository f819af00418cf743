"""Remove from DVC's cache and remotes every object that holds removed pictures.

DVC names an object by the MD5 of its bytes, and records name shards and tables by SHA-256. Tables and objects of the
size of such a shard are therefore read and hashed. Of small objects those are removed that show a picture: galleries
and pages with its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from files.errors import UserError

_SMALL = 64 * 2**20  # bytes; galleries and pages are smaller
_BLOCK = 2**20
_PARQUET = b"PAR1"


class PurgeError(UserError):
    """A cache or a remote of DVC cannot be read or written. The message names it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """An object of DVC that holds removed pictures.

    place: "cache", or "remote NAME".
    md5: its name.
    what: "shard", "table", "gallery" or "page".
    bytes: its size.
    """

    place: str
    md5: str
    what: str
    bytes: int


def purge(
    shards: Mapping[str, int], tables: Collection[str], keys: Collection[str], *, dry_run: bool
) -> tuple[Held, ...]:
    """Remove the objects that hold pictures, or their digests, from DVC's cache and from all its remotes.

    shards: SHA-256 -> bytes of every shard that ever held one.
    tables: SHA-256 of every `records.parquet` that listed one.
    keys: of the pictures.
    dry_run: only find them.
    Returns the objects, which are gone unless `dry_run`. Without a repository of DVC there is none.
    Raises PurgeError if a cache or remote cannot be read or written.
    """
    from dvc.exceptions import NotDvcRepoError  # dvc takes a second to import
    from dvc.repo import Repo

    try:
        repo = Repo()
    except NotDvcRepoError:
        return ()
    held: list[Held] = []
    with repo:
        for place, open_objects in _places(repo):
            try:
                objects = open_objects()
                found = list(_find(place, objects, shards, tables, [key.encode() for key in keys]))
                for each in found if not dry_run else ():
                    objects.delete(each.md5)
            except Exception as error:  # every file system raises its own kinds
                raise PurgeError(
                    f"{place} of DVC cannot be purged ({error}); make it available and run: python -m pipeline takedown"
                ) from error
            held += found
    return tuple(held)


def _places(repo: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of DVC's cache and of each remote, with a function that returns its objects."""
    yield "cache", lambda: repo.cache.local
    for name in sorted(repo.config["remote"]):
        yield f"remote {name}", lambda name=name: repo.cloud.get_remote_odb(name)


def _find(
    place: str, objects: Any, shards: Mapping[str, int], tables: Collection[str], keys: Collection[bytes]
) -> Iterator[Held]:
    sizes = set(shards.values())
    for path in _list(objects):
        size = objects.fs.size(path)
        what = ""
        if size in sizes and _sha256(objects, path) in shards:
            what = "shard"
        elif _starts_with(objects, path, _PARQUET):
            what = "table" if _sha256(objects, path) in tables else ""
        elif size <= _SMALL:
            what = _shows(objects, path, keys)
        if what:
            yield Held(place=place, md5=objects.path_to_oid(path), what=what, bytes=size)


def _list(objects: Any) -> list[str]:
    try:
        return sorted(path for path in objects.fs.find(objects.path) if not path.endswith(".dir"))
    except FileNotFoundError:
        return []


def _starts_with(objects: Any, path: str, magic: bytes) -> bool:
    with objects.fs.open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _sha256(objects: Any, path: str) -> str:
    digest = hashlib.sha256()
    with objects.fs.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _shows(objects: Any, path: str, keys: Collection[bytes]) -> str:
    """Return "gallery" or "page" for an object of that kind with one of the keys; "" for any other."""
    with objects.fs.open(path, "rb") as file:
        start = file.read(1024)
        if start[257:262] == b"ustar" and b"-composite-" in start[:100]:
            what, marks = "gallery", [key + b"." for key in keys]
        elif start.lstrip()[:9].lower() == b"<!doctype":
            what, marks = "page", keys
        else:
            return ""
        content = start + file.read()
    return what if any(mark in content for mark in marks) else ""
