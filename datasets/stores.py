"""Shards in an object store: put there once, fetched into a local cache, compared with their digests before use.

A shard lies in the store under a name that holds its digest, so that neither an older shard nor another data set's of
the same name can be taken for it, and two writers never overwrite each other. The store's address is no part of any
digest. The only file that imports fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.durable import durable_file
from datasets.manifest import Shard

SCHEMES = ("s3", "gs", "http", "https")

_URL = re.compile(rf"({'|'.join(SCHEMES)})://([A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]+)?(/[A-Za-z0-9_.=+-]+)*)/?")
_POLL_SECONDS = 0.05
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}  # of the cache; waiting changes nothing

log = logging.getLogger(__name__)


class StoreError(ValueError):
    """A store does not give, or does not take, the bytes that a manifest lists; names the object."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Where shards lie when they do not lie beside their manifests.

    url: s3://bucket/prefix, gs://bucket/prefix, or http(s)://host/prefix, which can only be read; None = beside the
        manifests. Credentials and endpoints come from where the store's own tools look for them, never from here.
    cache: folder of this machine that fetched shards are kept in; its processes share it.
    cache_bytes: what the cache may hold; the shards unused for longest make room.
    attempts, wait_seconds: how often a fetch is tried when the connection fails, and the first wait, which doubles.
    timeout_seconds: how long one attempt may take, and how long to wait for another process's.
    """

    url: str | None = None
    cache: str = "~/.cache/inpaint-foundry/shards"
    cache_bytes: int = 64 * 2**30
    attempts: int = 5
    wait_seconds: float = 0.5
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.url is not None:
            _parse(self.url)
        for name in ("cache_bytes", "attempts", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class Store:
    """Shards under one address, and the cache that they are read from.

    Raises StoreError for a scheme that is not allowed. Picklable; connections are made where they are first used.
    """

    def __init__(self, config: StoreConfig) -> None:
        if config.url is None:
            raise StoreError("a store needs an address; set store.url in params.yaml")
        self.config = config
        self._scheme, self._root = _parse(config.url)
        self._cache = Cache(Path(config.cache).expanduser(), config.cache_bytes, config.timeout_seconds)
        self._system: tuple[int, Any] | None = None

    def url_of(self, shard: Shard) -> str:
        """The address of a shard: its name and digest below the store's own."""
        return f"{self._scheme}://{self._root}/{Path(shard.name).stem}-{shard.sha256}.tar"

    def put(self, path: Path, shard: Shard) -> None:
        """Bring a finished shard into the store, unless it is there, and compare its size; then remove the file.

        Raises StoreError for a store that cannot be written to, and when what arrived has another size.
        """
        self.check_writable()
        if not self.has(shard):
            self._attempt(shard, "write", lambda: self._filesystem.put_file(str(path), self._path(shard)))
            if (size := self._size(shard)) != shard.bytes:
                raise StoreError(f"{self.url_of(shard)} has {size} bytes after writing, expected {shard.bytes}")
        path.unlink()

    def remove(self, shard: Shard) -> None:
        """Take a shard out of the store and out of this machine's cache; one that is not there is fine.

        Raises StoreError when the store cannot be written to, and when the shard is still there afterwards.
        """
        self.check_writable()
        self.forget(shard)
        self._attempt(shard, "remove", lambda: self._remove(shard))
        if self._size(shard) is not None:
            raise StoreError(f"{self.url_of(shard)} is still there after it was removed; remove it by other means")

    def check_writable(self) -> None:
        """Raise StoreError for an address that can only be read."""
        if self._is_http:
            raise StoreError(f"{self.config.url} can only be read; write to s3:// or gs://, or leave store.url null")

    def has(self, shard: Shard) -> bool:
        """Whether the store holds a shard of this digest and size."""
        return self._size(shard) == shard.bytes

    def check_sizes(self, shards: Sequence[Shard]) -> None:
        """Raise StoreError naming the first shard that the store lacks or has in another size; reads no content.

        Over http, where there is no list, nothing is asked: a shard is compared when it is fetched.
        """
        if not shards or self._is_http:
            return
        listed = self._attempt(shards[0], "list", lambda: self._filesystem.find(self._root, detail=True))
        for shard in shards:
            entry = listed.get(self._path(shard))
            if entry is None or entry["size"] != shard.bytes:
                found = "is missing" if entry is None else f"has {entry['size']} bytes"
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

    def _path(self, shard: Shard) -> str:
        """A shard as the store's client calls it."""
        return self.url_of(shard) if self._is_http else self.url_of(shard).removeprefix(f"{self._scheme}://")

    @property
    def _is_http(self) -> bool:
        return self._scheme in ("http", "https")

    def _fetch(self, shard: Shard, place: Path) -> None:
        """Write a shard's bytes to `place`; raises StoreError unless they have its digest."""
        if wrong := self._fetch_any(shard, place):
            raise StoreError(f"{wrong}; restore it, or delete it and run the stage that wrote it")

    def _fetch_any(self, shard: Shard, place: Path) -> str:
        """Write what the store has to `place`, once more if its digest differs; returns what is wrong then, or ""."""
        for tries_left in (1, 0):
            self._attempt(shard, "read", lambda: self._get(shard, place))
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

    def _remove(self, shard: Shard) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(shard))

    def _get(self, shard: Shard, place: Path) -> None:
        self._filesystem.get_file(self._path(shard), str(place), timeout=self.config.timeout_seconds)

    def _size(self, shard: Shard) -> int | None:
        """Size of the shard in the store; None if it is not there."""
        self._filesystem.invalidate_cache()
        try:
            return self._attempt(shard, "ask for", lambda: self._filesystem.size(self._path(shard)))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _attempt(self, shard: Shard, what: str, work: Any) -> Any:
        """Do something with the store, again after a wait while the connection fails."""
        for attempt in range(1, self.config.attempts + 1):
            try:
                return work()
            except FileNotFoundError as error:
                raise StoreError(f"{self.url_of(shard)} is missing") from error
            except Exception as error:  # every client has its own kinds
                is_final = isinstance(error, PermissionError) or getattr(error, "errno", None) in _FINAL
                if is_final or attempt == self.config.attempts:
                    raise StoreError(
                        f"cannot {what} {self.url_of(shard)} after {attempt} attempts: {type(error).__name__}: {error}"
                    ) from error
                wait = self.config.wait_seconds * 2 ** (attempt - 1)
                log.warning("cannot %s %s (%s); again in %g s", what, self.url_of(shard), error, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    @property
    def _filesystem(self) -> Any:
        """This process's connection."""
        if self._system is None or self._system[0] != os.getpid():
            self._system = (os.getpid(), self._connect())
        return self._system[1]

    def _connect(self) -> Any:
        import fsspec  # here, since most runs do without

        quiet = min(60.0, self.config.timeout_seconds)  # seconds without a byte
        if self._scheme == "s3":
            options: dict[str, Any] = {"config_kwargs": {"connect_timeout": quiet, "read_timeout": quiet}}
        else:
            import aiohttp

            # Given as a number, it would be the time for a whole shard.
            timeout = aiohttp.ClientTimeout(total=self.config.timeout_seconds, sock_connect=quiet, sock_read=quiet)
            options = {"client_kwargs": {"timeout": timeout}} if self._is_http else {"requests_timeout": timeout}
        try:
            return fsspec.filesystem(self._scheme, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            raise StoreError(f"{self.config.url} needs the extra `{self._scheme}` of this project") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None}


def put(config: StoreConfig, folder: Path, shard: Shard) -> None:
    """Move a finished shard from its folder into the store, if there is one."""
    if config.url:
        Store(config).put(folder / shard.name, shard)


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
            end = time.monotonic() + self.timeout_seconds
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if waiting_for is None:
                        raise
                    if time.monotonic() > end:
                        raise StoreError(
                            f"another process has held {self.folder / name} for {self.timeout_seconds:g} s while "
                            f"{waiting_for.name} was wanted; end it or raise store.timeout_seconds"
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)


class CacheFullError(StoreError):
    """What is in use leaves no room for another shard."""


def _parse(url: str) -> tuple[str, str]:
    """Scheme and path of a store's address. Raises StoreError for any other."""
    match = _URL.fullmatch(url)
    if not match or ".." in url:
        raise StoreError(
            f"store.url must be {'://..., '.join(SCHEMES)}://..., made of letters, digits and . _ - = + /, got {url!r}"
        )
    return match[1], match[2]


def _is_free(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _remove_unless_open(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True
