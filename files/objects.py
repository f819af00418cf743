"""Objects under one address of a store: s3, gs or http. The only file that imports fsspec."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from files.addresses import display_address, without_secrets
from files.errors import UserError

SCHEMES = ("s3", "gs", "http", "https")

WRITABLE_SCHEMES = ("s3", "gs")

_URL = re.compile(rf"({'|'.join(SCHEMES)})://([A-Za-z0-9][A-Za-z0-9_.-]*(:[0-9]+)?(/[A-Za-z0-9_.=+-]+)*)/?")
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}  # errors of this disk: waiting is useless

_MAX_STALLS = 2  # of one request

log = logging.getLogger(__name__)


class StoreError(UserError):
    """A store does not give or accept the expected bytes; the message names the object."""


class SilentStoreError(StoreError):
    """A store did not answer in time, twice. Further requests would wait as long."""


class MissingObjectError(StoreError):
    """The store answers that it has no object of this name."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Address of the store of shards, and settings for fetching them.

    url: s3://bucket/prefix, gs://bucket/prefix, or http(s)://host/prefix, which can only be read; None keeps shards
        beside their manifests. Credentials and endpoints come from the settings of the store's own tools, never from
        here.
    cache: folder for fetched shards, shared by the processes of this machine.
    cache_bytes: limit of the cache; the longest unused shards are removed.
    attempts: how often a request is tried if the connection fails.
    wait_seconds: wait after the first failure; it doubles after each further one.
    timeout_seconds: limit for one attempt, and for waiting for another process that fetches the same shard.
    stall_seconds: longest time without a byte from the store. A request that meets it is tried only once more.
    """

    url: str | None = None
    cache: str = "~/.cache/inpaint-foundry/shards"
    cache_bytes: int = 64 * 2**30
    attempts: int = 5
    wait_seconds: float = 0.5
    timeout_seconds: float = 600.0
    stall_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.url is not None:
            parse_address(self.url, "store.url")
        for name in ("cache_bytes", "attempts", "timeout_seconds", "stall_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class ObjectStore:
    """Objects of any content under one address. A name may have folders, such as "step-00000120/state.json".

    A request that fails is tried again after a wait, as the configuration says. After the last attempt every method
    raises StoreError with the address.
    Raises StoreError if the scheme of the address is not allowed. Picklable: each process connects at its first use.
    """

    def __init__(self, config: StoreConfig) -> None:
        if config.url is None:
            raise StoreError("a store needs an address; set store.url in params.yaml")
        self.config = config
        self._scheme, self._root = parse_address(config.url, "store.url")
        self._system: tuple[int, Any] | None = None

    def with_attempts(self, attempts: int) -> ObjectStore:
        """Return a copy that uses the same connection, with another number of attempts at each request."""
        other = copy.copy(self)
        other.config = replace(self.config, attempts=attempts)
        other._system = self._system  # copy uses __getstate__, which drops the connection
        return other

    @property
    def is_http(self) -> bool:
        """Return whether the store can only be read, and has no list of objects."""
        return self._scheme not in WRITABLE_SCHEMES

    def url_of(self, name: str) -> str:
        """Return the address of an object."""
        return f"{self._scheme}://{self._root}/{name}"

    def check_writable(self) -> None:
        """Raise StoreError if the store can only be read."""
        if self.is_http:
            raise StoreError(f"{self.config.url} can only be read; write to s3:// or gs://, or leave store.url null")

    def put(self, path: Path, name: str) -> None:
        """Copy a file to an object, replacing an object of this name, and compare their sizes."""
        self.check_writable()
        expected, timeout = path.stat().st_size, self.config.timeout_seconds
        try:
            self._attempt(
                name, "write", lambda: self._filesystem.put_file(str(path), self._path(name), timeout=timeout)
            )
        except MissingObjectError as error:  # the bucket is missing, not the object
            raise StoreError(f"cannot write {self.url_of(name)}: {error.__cause__}") from error
        if (size := self.size(name)) != expected:
            raise StoreError(f"{self.url_of(name)} has {size} bytes after writing, expected {expected}")

    def get(self, name: str, path: Path) -> None:
        """Copy an object to a file. Raises MissingObjectError if there is no such object."""
        self._attempt(
            name,
            "read",
            lambda: self._filesystem.get_file(self._path(name), str(path), timeout=self.config.timeout_seconds),
        )

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None if there is no such object."""
        self._filesystem.invalidate_cache()
        try:
            return self._attempt(name, "ask for", lambda: self._filesystem.size(self._path(name), timeout=self._quiet))
        except MissingObjectError:
            return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return name -> size in bytes, for all objects or those in a folder. Not for http, which has no list."""
        path = f"{self._root}/{folder}".rstrip("/")
        listed = self._attempt(folder, "list", lambda: self._filesystem.find(path, detail=True, timeout=self._quiet))
        return {name.removeprefix(f"{self._root}/"): entry["size"] for name, entry in listed.items()}

    def remove(self, name: str) -> None:
        """Remove an object. A missing object is no error."""
        self.check_writable()
        with contextlib.suppress(MissingObjectError):
            self._attempt(name, "remove", lambda: self._filesystem.rm_file(self._path(name), timeout=self._quiet))

    def _path(self, name: str) -> str:
        """Return the name by which fsspec's client knows an object."""
        return self.url_of(name) if self.is_http else f"{self._root}/{name}"

    @property
    def _quiet(self) -> float:
        return min(self.config.stall_seconds, self.config.timeout_seconds)

    def _attempt(self, name: str, action: str, request: Callable[[], Any]) -> Any:
        """Send a request, again after a wait if it fails, and return its result.

        name, action: object and verb for error messages, such as "read".
        """
        num_stalls = 0
        for attempt in range(1, self.config.attempts + 1):
            try:
                return request()
            except FileNotFoundError as error:
                raise MissingObjectError(f"{self.url_of(name)} is missing") from error
            except Exception as error:  # each client raises its own classes
                num_stalls += _is_stall(error)
                is_final = isinstance(error, PermissionError) or getattr(error, "errno", None) in _FINAL
                if is_final or attempt == self.config.attempts or num_stalls == _MAX_STALLS:
                    kind = SilentStoreError if num_stalls == _MAX_STALLS else StoreError
                    raise kind(self._describe_failure(action, name, attempt, error)) from error
                wait = self.config.wait_seconds * 2 ** (attempt - 1)
                problem = without_secrets(str(error)) or type(error).__name__
                log.warning("cannot %s %s (%s); again in %g s", action, self.url_of(name), problem, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _describe_failure(self, action: str, name: str, attempts: int, error: Exception) -> str:
        tried = f"cannot {action} {self.url_of(name)} after {attempts} attempts"
        if _is_stall(error):
            return (
                f"{tried}: it took too long ({self._quiet:g} s without a byte, or {self.config.timeout_seconds:g} s in "
                "all); look after the store, or raise store.stall_seconds or store.timeout_seconds"
            )
        return f"{tried}: {type(error).__name__}: {error}"

    @property
    def _filesystem(self) -> Any:
        """The connection of this process."""
        if self._system is None or self._system[0] != os.getpid():
            self._system = (os.getpid(), self._connect())
        return self._system[1]

    def _connect(self) -> Any:
        import fsspec  # not at the top: most runs need no store

        if self._scheme == "s3":
            # Both libraries below would repeat a request as well, so that a stall would take many times as long.
            config = {"connect_timeout": self._quiet, "read_timeout": self._quiet, "retries": {"total_max_attempts": 1}}
            options: dict[str, Any] = {"config_kwargs": config}
        else:
            import aiohttp

            # As a number, aiohttp would take it for the time of a whole object.
            timeout = aiohttp.ClientTimeout(
                total=self.config.timeout_seconds, sock_connect=self._quiet, sock_read=self._quiet
            )
            options = {"client_kwargs": {"timeout": timeout}} if self.is_http else {"requests_timeout": timeout}
        try:
            system = fsspec.filesystem(self._scheme, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            raise StoreError(f"{self.config.url} needs the extra `{self._scheme}` of this project") from error
        if self._scheme == "s3":
            system.retries = 1
        return system

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None}


def _is_stall(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, is a time-out: the clients have classes of their own for it."""
    while error is not None:
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return True
        error = error.__cause__ or error.__context__
    return False


def parse_address(url: str, key: str, schemes: Sequence[str] = SCHEMES) -> tuple[str, str]:
    """Split a store's address into scheme and path.

    key: name of the parameter in params.yaml, for error messages.
    schemes: schemes that are allowed.
    Raises StoreError if the scheme is another one, or if the path has other characters than a bucket and prefix may.
    """
    match = _URL.fullmatch(url)
    if not match or ".." in url or match[1] not in schemes:
        only_read = "; that can only be read" if match and match[1] in SCHEMES else ""
        raise StoreError(
            f"{key} must be {'://..., '.join(schemes)}://..., made of letters, digits and . _ - = + /, got "
            f"{display_address(url)!r}{only_read}; credentials belong to the settings of the store's own tools"
        )
    return match[1], match[2]
