"""Shards as objects of a store: put there once, read from a cache, compared with their digests.

A shard lies in the store under a name that holds its digest, so that neither an older shard nor another data set's of
the same name can be taken for it, and two writers never overwrite each other. The store's address is no part of any
digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.shards.cache import Cache
from datasets.shards.manifest import Shard
from files.objects import (
    ObjectStore,
    StoreConfig,
    StoreError,
)

log = logging.getLogger(__name__)


class ShardStore:
    """Shards under one address, and the cache that they are read from.

    Raises StoreError for a scheme that is not allowed. Picklable; connections are made where they are first used.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._objects = ObjectStore(config)
        self._cache = Cache(Path(config.cache).expanduser(), config.cache_bytes, config.timeout_seconds)

    def url_of(self, shard: Shard) -> str:
        """The address of a shard: its name and digest below the store's own."""
        return self._objects.url_of(_name(shard))

    def put(self, path: Path, shard: Shard) -> None:
        """Bring a finished shard into the store, unless it is there, and compare its size; then remove the file.

        Raises StoreError for a store that cannot be written to, and when what arrived has another size.
        """
        self.check_writable()
        if (size := path.stat().st_size) != shard.bytes:
            raise StoreError(f"{path} has {size} bytes, its manifest says {shard.bytes} bytes; run its stage again")
        if not self.has(shard):
            self._objects.put(path, _name(shard))
        path.unlink()

    def remove(self, shard: Shard) -> None:
        """Take a shard out of the store and out of this machine's cache; one that is not there is fine.

        Raises StoreError when the store cannot be written to, and when the shard is still there afterwards.
        """
        self.check_writable()
        self.forget(shard)
        self._objects.remove(_name(shard))
        if self._objects.size(_name(shard)) is not None:
            raise StoreError(f"{self.url_of(shard)} is still there after it was removed; remove it by other means")

    def check_writable(self) -> None:
        """Raise StoreError for an address that can only be read."""
        self._objects.check_writable()

    def has(self, shard: Shard) -> bool:
        """Whether the store holds a shard of this digest and size."""
        return self._objects.size(_name(shard)) == shard.bytes

    def check_sizes(self, shards: Sequence[Shard]) -> None:
        """Raise StoreError naming the first shard that the store lacks or has in another size; reads no content.

        Over http, where there is no list, nothing is asked: a shard is compared when it is fetched.
        """
        if not shards or self._objects.is_http:
            return
        sizes = self._objects.sizes()
        for shard in shards:
            size = sizes.get(_name(shard))
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(f"{self.url_of(shard)} {found}, its manifest says {shard.bytes} bytes")

    def open(self, shard: Shard) -> int:
        """A descriptor of the shard in the cache, fetched first if it is not there; kept there until it is closed.

        Raises StoreError, with the address, when it cannot be had in time or differs from its digest after one more
        try, and when the cache has no room for it.
        """
        return self._cache.open(shard, self._fetch)

    @contextlib.contextmanager
    def copied(self, shard: Shard) -> Iterator[Path]:
        """A copy of what the store has now under a shard's name, right or wrong; removed afterwards.

        Raises StoreError when it cannot be had.
        """
        folder = self._cache.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=folder) as place:
            path = Path(place) / shard.name
            self._fetch_any(shard, path)
            yield path

    def prefetch(self, shard: Shard) -> None:
        """Bring a shard into the cache, unless another process is at it or what is in use leaves no room."""
        self._cache.prefetch(shard, self._fetch)

    def forget(self, shard: Shard) -> None:
        """Drop the cached copy of a shard that was found to have changed."""
        self._cache.forget(shard)

    def _fetch(self, shard: Shard, place: Path) -> None:
        """Write a shard's bytes to `place`; raises StoreError unless they have its digest."""
        if wrong := self._fetch_any(shard, place):
            raise StoreError(f"{wrong}; restore it, or delete it and run the stage that wrote it")

    def _fetch_any(self, shard: Shard, place: Path) -> str:
        """Write what the store has to `place`, once more if its digest differs; returns what is wrong then, or ""."""
        for tries_left in (1, 0):
            self._objects.get(_name(shard), place)
            size = place.stat().st_size
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == shard.sha256:
                return ""
            found = f"has digest {digest}" if size == shard.bytes else f"has {size} bytes and digest {digest}"
            wrong = f"{self.url_of(shard)} {found}, its manifest says {shard.bytes} bytes and digest {shard.sha256}"
            if tries_left:
                log.warning("%s; fetching it once more", wrong)
        return wrong


def _name(shard: Shard) -> str:
    return f"{Path(shard.name).stem}-{shard.sha256}.tar"


def put(config: StoreConfig, folder: Path, shard: Shard) -> None:
    """Move a finished shard from its folder into the store, if there is one."""
    if config.url:
        ShardStore(config).put(folder / shard.name, shard)
