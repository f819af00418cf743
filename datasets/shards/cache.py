"""Fetched shards on this machine, in a folder that several processes fill and empty together.

Files of the folder:
<digest>.tar: a complete shard. A reader holds a shared lock on it while it is open. Its time of change is its last use.
.<digest>.tar.<pid>.partial: a shard that is being fetched.
<digest>.lock: its exclusive lock is the right to fetch this shard. Its length is the number of bytes that the fetch
    reserves: the shard's size during a fetch, otherwise 0.
room.lock: its exclusive lock is the right to make room and to reserve. It is always empty.

Rules:
1. A process locks <digest>.lock first and room.lock second, and waits for no other lock in between.
2. Only the process that holds both locks lengthens <digest>.lock.
3. The process that holds <digest>.lock truncates it to 0, after its fetch or, for a killed one, before.
4. The process that holds room.lock truncates every other lock file that has a length and is not locked: its fetch was
   killed. By rule 2 no new fetch can have reserved room there in the meantime.
5. Before a process truncates the lock file of a killed fetch, it removes the partial file.
6. Only the process that holds room.lock removes shards to make room, and only shards that it can lock, which no process
   has open. Any process may remove a shard whose bytes it found to be wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from datasets.shards.manifest import Shard
from files.durable import durable_file
from files.locks import lock_file
from files.objects import StoreError

Fetch = Callable[[Shard, Path], None]
"""Write a shard's bytes to a path."""

log = logging.getLogger(__name__)


class CacheFullError(StoreError):
    """The shards that are open leave no room for another one."""


class Cache:
    """A folder of fetched shards, named by digest.

    folder: made when it is first used.
    limit_bytes: size of all shards together, those being fetched included.
    timeout_seconds: how long to wait for another process that fetches the same shard or makes room.
    """

    def __init__(self, folder: Path, limit_bytes: int, timeout_seconds: float) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.timeout_seconds = timeout_seconds

    def open(self, shard: Shard, fetch: Fetch) -> int:
        """Return a descriptor of a shard, fetched first if necessary. The shard stays in the cache while it is open.

        Raises CacheFullError if there is no room for the shard, StoreError if another process keeps a lock too long.
        """
        while True:
            try:
                return self._open(shard)
            except FileNotFoundError:
                with self._locked(f"{shard.sha256}.lock", shard) as lock:
                    if not self._path(shard).exists():
                        self._fill(shard, fetch, lock)

    def prefetch(self, shard: Shard, fetch: Fetch) -> None:
        """Fetch a shard unless it is cached, another process fetches it, or there is no room."""
        if self._path(shard).exists():
            return
        with contextlib.suppress(BlockingIOError), self._locked(f"{shard.sha256}.lock", None) as lock:
            if not self._path(shard).exists():
                try:
                    self._fill(shard, fetch, lock)
                except CacheFullError as error:
                    log.debug("%s; the shard is fetched when it is read", error)

    def forget(self, shard: Shard) -> None:
        """Remove a shard. Processes that have it open can still read it."""
        self._path(shard).unlink(missing_ok=True)

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.tar"

    def _open(self, shard: Shard) -> int:
        descriptor = os.open(self._path(shard), os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            os.utime(descriptor)  # marks the last use
            return descriptor
        os.close(descriptor)  # removed between opening and locking
        raise FileNotFoundError(self._path(shard))

    def _fill(self, shard: Shard, fetch: Fetch, lock: int) -> None:
        """Fetch a shard. lock: descriptor of its lock file, which this process has locked."""
        with self._locked("room.lock", shard):
            self._remove_partial_files(shard.sha256)
            os.ftruncate(lock, 0)  # the reservation of a killed fetch of the same shard
            self._make_room(shard)
            os.ftruncate(lock, shard.bytes)
        try:
            with durable_file(self._path(shard)) as file:
                fetch(shard, Path(file.name))
        finally:
            os.ftruncate(lock, 0)

    def _make_room(self, shard: Shard) -> None:
        """Remove shards that are not open, the longest unused first, until `shard` has room.

        Raises CacheFullError if all of them together are not enough.
        """
        # Reservations are counted before shards: a fetch that ends in between is then counted twice, which is safe.
        excess = self._reserved_bytes() + shard.bytes - self.limit_bytes
        cached = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.tar"))
        excess += sum(size for _, size, _ in cached)
        for _, size, path in cached:
            if excess <= 0:
                return
            if _remove_unless_open(path):
                excess -= size
        if excess > 0:
            raise CacheFullError(
                f"{self.folder} may hold {self.limit_bytes} bytes, and the shards in use leave {excess} too few for "
                f"{shard.name}; raise store.cache_bytes or lower train.samples.plan.window_shards"
            )

    def _reserved_bytes(self) -> int:
        """Return the bytes that running fetches have reserved, and clear the reservations of killed ones."""
        total = 0
        for path in self.folder.glob("*.lock"):
            size = path.stat().st_size
            if size and _is_unlocked(path):
                self._remove_partial_files(path.stem)
                os.truncate(path, 0)
            else:
                total += size
        return total

    def _remove_partial_files(self, digest: str) -> None:
        for partial in self.folder.glob(f".{digest}.tar.*.partial"):
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, name: str, shard: Shard | None) -> Iterator[int]:
        """Lock a file of the folder and yield its descriptor.

        shard: the shard that the caller waits for; None raises BlockingIOError instead of waiting.
        Raises StoreError if another process has kept the lock for `timeout_seconds`.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not lock_file(descriptor, timeout_seconds=self.timeout_seconds if shard else 0):
                if shard is None:
                    raise BlockingIOError(self.folder / name)
                raise StoreError(
                    f"another process has held {self.folder / name} for {self.timeout_seconds:g} s while "
                    f"{shard.name} was wanted; end it or raise store.timeout_seconds"
                )
            yield descriptor
        finally:
            os.close(descriptor)


def _is_unlocked(path: Path) -> bool:
    with path.open("rb") as file:
        return lock_file(file, timeout_seconds=0)


def _remove_unless_open(path: Path) -> bool:
    """Remove a file and return True, unless a process has it locked."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if not lock_file(file, timeout_seconds=0):
            return False
        path.unlink()
    return True
