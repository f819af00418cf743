"""Objects under one address of a store: s3, gs or http. The only file that imports fsspec."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from files.errors import UserError

SCHEMES = ("s3", "gs", "http", "https")

WRITABLE_SCHEMES = ("s3", "gs")

_URL = re.compile(rf"({'|'.join(SCHEMES)})://([A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]+)?(/[A-Za-z0-9_.=+-]+)*)/?")
_QUIET_SECONDS = 60.0  # without a byte, and for a request that moves none
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


class ObjectStore:
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

    def with_attempts(self, attempts: int) -> ObjectStore:
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
