"""Fetched shards on this machine, which several processes fill and empty together."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.shards.manifest import Shard
from files.durable import durable_file
from files.locks import lock_file
from files.objects import StoreError

log = logging.getLogger(__name__)


class Cache:
    """A folder of fetched shards by digest, which several processes fill and empty together.

    A shard is whole under its name. Whoever reads one holds a shared lock on it, so that it is not removed; whoever
    fetches one holds its lock file, whose length is the room that it has reserved.
    """

    def __init__(self, folder: Path, limit_bytes: int, timeout_seconds: float) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.timeout_seconds = timeout_seconds

    def open(self, shard: Shard, fetch: Any) -> int:
        """A descriptor of the shard, under a shared lock until it is closed."""
        while True:
            try:
                return self._open(shard)
            except FileNotFoundError:
                with self._locked(f"{shard.sha256}.lock", shard) as lock:
                    if not self._path(shard).exists():
                        self._fill(shard, fetch, lock)

    def prefetch(self, shard: Shard, fetch: Any) -> None:
        """Fetch a shard unless it is there, somebody fetches it, or there is no room."""
        if self._path(shard).exists():
            return
        with contextlib.suppress(BlockingIOError), self._locked(f"{shard.sha256}.lock", None) as lock:
            if not self._path(shard).exists():
                try:
                    self._fill(shard, fetch, lock)
                except CacheFullError as error:
                    log.debug("%s; it is fetched when it is read", error)

    def forget(self, shard: Shard) -> None:
        """Remove a shard; whoever has it open keeps what is open."""
        self._path(shard).unlink(missing_ok=True)

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.tar"

    def _open(self, shard: Shard) -> int:
        descriptor = os.open(self._path(shard), os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            os.utime(descriptor)  # used last now
            return descriptor
        os.close(descriptor)  # removed between opening and locking
        raise FileNotFoundError(self._path(shard))

    def _fill(self, shard: Shard, fetch: Any, lock: int) -> None:
        with self._locked("room.lock", shard):
            self._make_room(shard)
            os.ftruncate(lock, shard.bytes)
        try:
            with durable_file(self._path(shard)) as file:
                fetch(shard, Path(file.name))
        finally:
            os.ftruncate(lock, 0)

    def _make_room(self, shard: Shard) -> None:
        """Remove what was unused for longest and is not open; raises CacheFullError if that is not enough."""
        needed = shard.bytes + self._reserved() - self.limit_bytes
        cached = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.tar"))
        needed += sum(size for _, size, _ in cached)
        for _, size, path in cached:
            if needed <= 0:
                return
            if _remove_unless_open(path):
                needed -= size
        if needed > 0:
            raise CacheFullError(
                f"{self.folder} may hold {self.limit_bytes} bytes, and what is in use leaves {needed} too few for "
                f"{shard.name}; raise store.cache_bytes or lower train.samples.plan.window_shards"
            )

    def _reserved(self) -> int:
        """Bytes that fetches under way will take; what killed ones have left is removed."""
        total = 0
        for path in self.folder.glob("*.lock"):
            size = path.stat().st_size
            if size and _is_free(path):
                os.truncate(path, 0)
                for partial in self.folder.glob(f".{path.stem}.tar.*.partial"):
                    partial.unlink(missing_ok=True)
            else:
                total += size
        return total

    @contextlib.contextmanager
    def _locked(self, name: str, waiting_for: Shard | None) -> Iterator[int]:
        """Hold a lock file; None does not wait but raises BlockingIOError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not lock_file(descriptor, timeout_seconds=self.timeout_seconds if waiting_for else 0):
                if waiting_for is None:
                    raise BlockingIOError(self.folder / name)
                raise StoreError(
                    f"another process has held {self.folder / name} for {self.timeout_seconds:g} s while "
                    f"{waiting_for.name} was wanted; end it or raise store.timeout_seconds"
                )
            yield descriptor
        finally:
            os.close(descriptor)


class CacheFullError(StoreError):
    """What is in use leaves no room for another shard."""


def _is_free(path: Path) -> bool:
    with path.open("rb") as file:
        return lock_file(file, timeout_seconds=0)


def _remove_unless_open(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if not lock_file(file, timeout_seconds=0):
            return False
        path.unlink()
    return True
