"""Shards in a store: written once, read through a cache, and compared with their digests.

A shard's name in the store contains its digest. Hence an older shard or another data set's shard of the same name is
never confused with it, and two writers never overwrite each other. No digest depends on the store's address.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.shards.cache import Cache
from datasets.shards.manifest import Shard
from files.durable import file_digest
from files.objects import ObjectStore, StoreConfig, StoreError

log = logging.getLogger(__name__)


class ShardStore:
    """Shards under one address, and the cache through which they are read.

    Raises StoreError if the scheme of the address is not allowed. Picklable: each process connects at its first use.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._objects = ObjectStore(config)
        self._cache = Cache(Path(config.cache).expanduser(), config.cache_bytes, config.timeout_seconds)

    def url_of(self, shard: Shard) -> str:
        """Return the address of a shard."""
        return self._objects.url_of(_name(shard))

    def put(self, path: Path, shard: Shard) -> None:
        """Copy a finished shard into the store, unless the store has it, compare the size, then remove the file.

        Raises StoreError if the store cannot be written to, or if the file or its copy has another size than `shard`.
        """
        self.check_writable()
        if (size := path.stat().st_size) != shard.bytes:
            raise StoreError(f"{path} has {size} bytes, its manifest says {shard.bytes} bytes; run its stage again")
        if not self.has(shard):
            self._objects.put(path, _name(shard))
        path.unlink()

    def remove(self, shard: Shard) -> None:
        """Remove a shard from the store and from this machine's cache. A missing shard is no error.

        Raises StoreError if the store cannot be written to, or if it still has the shard afterwards.
        """
        self.check_writable()
        self.forget(shard)
        self._objects.remove(_name(shard))
        if self._objects.size(_name(shard)) is not None:
            raise StoreError(f"{self.url_of(shard)} still exists after its removal; remove it by other means")

    def check_writable(self) -> None:
        """Raise StoreError for an address that can only be read."""
        self._objects.check_writable()

    def has(self, shard: Shard) -> bool:
        """Return whether the store has a shard of this digest and size."""
        return self._objects.size(_name(shard)) == shard.bytes

    def check_sizes(self, shards: Sequence[Shard]) -> None:
        """Raise StoreError that names the first shard that is missing or has another size. Reads no content.

        Over http, which has no list of objects, this checks nothing: a shard is compared when it is fetched.
        """
        if not shards or self._objects.is_http:
            return
        sizes = self._objects.sizes()
        for shard in shards:
            size = sizes.get(_name(shard))
            if size != shard.bytes:
                problem = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(f"{self.url_of(shard)} {problem}, its manifest says {shard.bytes} bytes")

    def open(self, shard: Shard) -> int:
        """Return a descriptor of a shard in the cache, fetched first if necessary. It stays cached while it is open.

        Raises StoreError with the address if the store does not give the shard in time, if a second fetch has the
        wrong digest too, or if the cache has no room.
        """
        return self._cache.open(shard, self._fetch)

    @contextlib.contextmanager
    def copied(self, shard: Shard) -> Iterator[Path]:
        """Yield a temporary copy of the object that the store has for a shard, even if its digest is wrong.

        Raises StoreError if the store does not give the object.
        """
        folder = self._cache.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=folder) as temporary:
            path = Path(temporary) / shard.name
            self._fetch_unchecked(shard, path)
            yield path

    def prefetch(self, shard: Shard) -> None:
        """Fetch a shard into the cache, unless another process fetches it or the shards in use leave no room."""
        self._cache.prefetch(shard, self._fetch)

    def forget(self, shard: Shard) -> None:
        """Remove the cached copy of a shard, because its bytes have changed since it was fetched."""
        self._cache.forget(shard)

    def _fetch(self, shard: Shard, path: Path) -> None:
        """Write a shard's bytes to a file. Raises StoreError if they have another digest."""
        if problem := self._fetch_unchecked(shard, path):
            raise StoreError(f"{problem}; restore it, or delete it and run the stage that wrote it")

    def _fetch_unchecked(self, shard: Shard, path: Path) -> str:
        """Write a shard's object to a file, a second time if the digest is wrong.

        Returns a message about the wrong digest of the second fetch, or "" if the digest is right.
        """
        problem = self._fetch_once(shard, path)
        if problem:
            log.warning("%s; fetching it once more", problem)
            problem = self._fetch_once(shard, path)
        return problem

    def _fetch_once(self, shard: Shard, path: Path) -> str:
        self._objects.get(_name(shard), path)
        digest, size = file_digest(path), path.stat().st_size
        if digest == shard.sha256:
            return ""
        problem = f"has digest {digest}" if size == shard.bytes else f"has {size} bytes and digest {digest}"
        return f"{self.url_of(shard)} {problem}, its manifest says {shard.bytes} bytes and digest {shard.sha256}"


def _name(shard: Shard) -> str:
    """Return the name of a shard's object, such as image-000012-<digest>.tar."""
    return f"{Path(shard.name).stem}-{shard.sha256}.tar"


def put(config: StoreConfig, folder: Path, shard: Shard) -> None:
    """Move a finished shard from its folder into the store, if the configuration has an address."""
    if config.url:
        ShardStore(config).put(folder / shard.name, shard)
