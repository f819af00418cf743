"""Objects in a store, and shards as objects: put there once, fetched into a cache, compared with their digests.

A shard lies in the store under a name that holds its digest, so that neither an older shard nor another data set's of
the same name can be taken for it, and two writers never overwrite each other. The store's address is no part of any
digest. The only file that imports fsspec.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.durable import durable_file
from datasets.manifest import Shard
from files.errors import UserError

SCHEMES = ("s3", "gs", "http", "https")

WRITABLE_SCHEMES = ("s3", "gs")

_URL = re.compile(rf"({'|'.join(SCHEMES)})://([A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]+)?(/[A-Za-z0-9_.=+-]+)*)/?")
_QUIET_SECONDS = 60.0  # without a byte, and for a request that moves none
_POLL_SECONDS = 0.05
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}  # of the cache; waiting changes nothing

log = logging.getLogger(__name__)


class StoreError(UserError):
    """A store does not give, or does not take, the bytes that are expected; names the object."""


class MissingObjectError(StoreError):
    """The store answers, and has no object of this name."""


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
            parse_address(self.url, "store.url")
        for name in ("cache_bytes", "attempts", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class Objects:
    """Files under one address, by name, whatever is in them. A name may have folders: "step-00000120/state.json".

    What fails is tried again after a wait, as the configuration says; in the end it raises StoreError with the address.
    Raises StoreError for a scheme that is not allowed. Picklable; connections are made where they are first used.
    """

    def __init__(self, config: StoreConfig) -> None:
        if config.url is None:
            raise StoreError("a store needs an address; set store.url in params.yaml")
        self.config = config
        self._scheme, self._root = parse_address(config.url, "store.url")
        self._system: tuple[int, Any] | None = None

    def trying(self, attempts: int) -> Objects:
        """The same over the same connection, with so many attempts at each request."""
        other = copy.copy(self)
        other.config, other._system = replace(self.config, attempts=attempts), self._system
        return other

    @property
    def is_http(self) -> bool:
        """Whether the store can only be read, and lists nothing."""
        return self._scheme not in WRITABLE_SCHEMES

    def url_of(self, name: str) -> str:
        """The address of an object."""
        return f"{self._scheme}://{self._root}/{name}"

    def check_writable(self) -> None:
        """Raise StoreError for an address that can only be read."""
        if self.is_http:
            raise StoreError(f"{self.config.url} can only be read; write to s3:// or gs://, or leave store.url null")

    def put(self, path: Path, name: str) -> None:
        """Write a file, over what is there, and compare the size of what arrived."""
        self.check_writable()
        expected, timeout = path.stat().st_size, self.config.timeout_seconds
        try:
            self._attempt(
                name, "write", lambda: self._filesystem.put_file(str(path), self._path(name), timeout=timeout)
            )
        except MissingObjectError as error:  # what is missing is not what is written
            raise StoreError(f"cannot write {self.url_of(name)}: {error.__cause__}") from error
        if (size := self.size(name)) != expected:
            raise StoreError(f"{self.url_of(name)} has {size} bytes after writing, expected {expected}")

    def get(self, name: str, path: Path) -> None:
        """Fetch an object into a file. Raises MissingObjectError if there is none."""
        self._attempt(
            name,
            "read",
            lambda: self._filesystem.get_file(self._path(name), str(path), timeout=self.config.timeout_seconds),
        )

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if there is none."""
        self._filesystem.invalidate_cache()
        try:
            return self._attempt(name, "ask for", lambda: self._filesystem.size(self._path(name), timeout=self._quiet))
        except MissingObjectError:
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every object in a folder, or of all, by name. Not over http, where there is no list."""
        path = f"{self._root}/{folder}".rstrip("/")
        listed = self._attempt(folder, "list", lambda: self._filesystem.find(path, detail=True, timeout=self._quiet))
        return {name.removeprefix(f"{self._root}/"): entry["size"] for name, entry in listed.items()}

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""
        self.check_writable()
        with contextlib.suppress(MissingObjectError):
            self._attempt(name, "remove", lambda: self._filesystem.rm_file(self._path(name), timeout=self._quiet))

    def _path(self, name: str) -> str:
        """An object as the store's client calls it."""
        return self.url_of(name) if self.is_http else f"{self._root}/{name}"

    @property
    def _quiet(self) -> float:
        return min(_QUIET_SECONDS, self.config.timeout_seconds)

    def _attempt(self, name: str, what: str, work: Any) -> Any:
        """Do something with the store, again after a wait while the connection fails."""
        for attempt in range(1, self.config.attempts + 1):
            try:
                return work()
            except FileNotFoundError as error:
                raise MissingObjectError(f"{self.url_of(name)} is missing") from error
            except Exception as error:  # every client has its own kinds
                is_final = isinstance(error, PermissionError) or getattr(error, "errno", None) in _FINAL
                if is_final or attempt == self.config.attempts:
                    raise StoreError(
                        f"cannot {what} {self.url_of(name)} after {attempt} attempts: {type(error).__name__}: {error}"
                    ) from error
                wait = self.config.wait_seconds * 2 ** (attempt - 1)
                log.warning("cannot %s %s (%s); again in %g s", what, self.url_of(name), error, wait)
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

        if self._scheme == "s3":
            options: dict[str, Any] = {"config_kwargs": {"connect_timeout": self._quiet, "read_timeout": self._quiet}}
        else:
            import aiohttp

            # Given as a number, it would be the time for a whole object.
            timeout = aiohttp.ClientTimeout(
                total=self.config.timeout_seconds, sock_connect=self._quiet, sock_read=self._quiet
            )
            options = {"client_kwargs": {"timeout": timeout}} if self.is_http else {"requests_timeout": timeout}
        try:
            return fsspec.filesystem(self._scheme, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            raise StoreError(f"{self.config.url} needs the extra `{self._scheme}` of this project") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None}


class Store:
    """Shards under one address, and the cache that they are read from.

    Raises StoreError for a scheme that is not allowed. Picklable; connections are made where they are first used.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._objects = Objects(config)
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


def parse_address(url: str, key: str, schemes: Sequence[str] = SCHEMES) -> tuple[str, str]:
    """Scheme and path of a store's address, which stands under `key` in params.yaml.

    Raises StoreError for any other than those schemes, and for what no bucket or prefix is made of.
    """
    match = _URL.fullmatch(url)
    if not match or ".." in url or match[1] not in schemes:
        only_read = "; that can only be read" if match and match[1] in SCHEMES else ""
        raise StoreError(
            f"{key} must be {'://..., '.join(schemes)}://..., made of letters, digits and . _ - = + /, got {url!r}"
            f"{only_read}"
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
