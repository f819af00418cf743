"""Tombstones: records that stay out of the shards although a source has them. One per line of a file in git."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from files.archives import ArchiveError, Locator, MemberError, read
from files.durable import write_durably
from files.errors import UserError

TAKEN_DOWN, DAMAGED, DUPLICATE = "taken down", "damaged", "duplicate"
STATUSES = (TAKEN_DOWN, DAMAGED, DUPLICATE)


class TombstoneError(UserError):
    """A line of the file of tombstones cannot be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """One record that stays out, and why.

    dataset, key: the record.
    source, source_sha256: name of its source, and the digest of the source's bytes in hex.
    every_copy: whether every source with these bytes stays out too, under any key and in any data set.
    status: one of `STATUSES`; manifests list it as the reason of rejection.
    reason: the reason in a person's words.
    date: day of the decision, YYYY-MM-DD.
    """

    dataset: str
    key: str
    source: str
    source_sha256: str
    every_copy: bool
    status: str
    reason: str
    date: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            kind = bool if name == "every_copy" else str
            if not isinstance(value, kind):
                raise ValueError(f"{name} must be {kind.__name__}, got {value!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.source_sha256):
            raise ValueError(f"source_sha256 must be 64 hexadecimal digits, got {self.source_sha256!r}")
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        date.fromisoformat(self.date)


@dataclass(frozen=True)
class StayOut:
    """The tombstones that apply to one data set.

    keys: key -> status.
    digests: SHA-256 of a source, binary -> status; for every copy of these bytes.
    """

    keys: Mapping[str, str]
    digests: Mapping[bytes, str]

    def status(self, key: str, source_sha256: bytes | None = None) -> str | None:
        """Return the status of a record that stays out, by its key or its source's digest; None if it may stay."""
        return self.keys.get(key) or self.digests.get(source_sha256)


def read_tombstones(path: Path) -> tuple[Tombstone, ...]:
    """Read all tombstones in the order of the file; a missing file has none. Lines that start with # are comments.

    Raises TombstoneError that names the first line which is not a tombstone or contradicts an earlier one, and for a
    path that is no file.
    """
    return tuple(_read_lines(path).values())


def _read_lines(path: Path) -> dict[int, Tombstone]:
    """Return number of the line -> tombstone; see `read_tombstones`."""
    tombstones: dict[int, Tombstone] = {}
    first_lines: dict[tuple[str, str], int] = {}
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if line.startswith(b"#"):
            continue
        try:
            tombstone = Tombstone(**json.loads(line, object_pairs_hook=_unique_keys))
        except (ValueError, TypeError, RecursionError) as error:
            raise TombstoneError(f"{path}, line {number} is not a tombstone ({error}); restore it from git") from error
        first = first_lines.setdefault((tombstone.dataset, tombstone.key), number)
        if tombstones.get(first, tombstone).source_sha256 != tombstone.source_sha256:
            raise TombstoneError(
                f"{path}, lines {first} and {number} name {tombstone.key} of {tombstone.dataset} with different "
                "digests; keep the line of the picture that must stay out"
            )
        tombstones[number] = tombstone
    return tombstones


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def add_tombstones(path: Path, tombstones: Iterable[Tombstone]) -> None:
    """Append the tombstones that the file lacks. After a kill the file is either the old one or the new one."""
    present = read_tombstones(path)
    new = [tombstone for tombstone in dict.fromkeys(tombstones) if tombstone not in present]
    if new:
        lines = "".join(json.dumps(asdict(tombstone), sort_keys=True) + "\n" for tombstone in new)
        write_durably(path, _content(path) + lines.encode())


def _content(path: Path) -> bytes:
    """Return the content of the file, with the end of the last line added if it is missing.

    Raises TombstoneError for a folder, a broken link or a file that cannot be read.
    """
    try:
        content = path.read_bytes() if path.exists() or path.is_symlink() else b""
    except OSError as error:
        raise TombstoneError(f"{path} cannot be read ({error.strerror}); restore it from git") from error
    return content + b"\n" if content and not content.endswith(b"\n") else content


def stay_out(tombstones: Iterable[Tombstone], dataset: str, listed: Container[str] | None = None) -> StayOut:
    """Select the tombstones that apply to one data set. Of two with the same key or digest, the first counts.

    listed: keys of all pictures in the source. A tombstone whose key is not there keeps its bytes out under every key:
        the picture may have been renamed. A duplicate does not: the copy that stays can have the same bytes. None: all
        keys of tombstones count as listed.
    """
    keys: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for tombstone in tombstones:
        is_own = tombstone.dataset == dataset
        is_lost = is_own and listed is not None and tombstone.key not in listed and tombstone.status != DUPLICATE
        if is_own:
            keys.setdefault(tombstone.key, tombstone.status)
        if tombstone.every_copy or is_lost:
            digests.setdefault(bytes.fromhex(tombstone.source_sha256), tombstone.status)
    return StayOut(keys, digests)


def find_unlisted(path: Path, dataset: str, listed: Container[str]) -> list[str]:
    """Return a text for each tombstone of a data set whose key is not among the keys of its source."""
    return [
        f"{path}, line {number}: {dataset} has no picture with the key {tombstone.key!r}; it is kept out by its bytes "
        "alone. If it has left the source for good, remove the line"
        for number, tombstone in _read_lines(path).items()
        if tombstone.dataset == dataset and tombstone.key not in listed
    ]


def check_digests(path: Path, dataset: str, pictures: Mapping[str, Locator]) -> None:
    """Compare each tombstone of a data set with the picture that has its key.

    pictures: key -> file of the source.
    Raises TombstoneError for a picture with other bytes: the one that was taken down may be there under another key.
    """
    for number, tombstone in _read_lines(path).items():
        if tombstone.dataset != dataset or tombstone.key not in pictures:
            continue
        try:
            digest = hashlib.sha256(read(pictures[tombstone.key])).hexdigest()
        except (ArchiveError, MemberError):  # ingest names what is wrong with it, if it needs the picture
            continue
        if digest != tombstone.source_sha256:
            raise TombstoneError(
                f"{path}, line {number}: {tombstone.key} of {dataset} has the SHA-256 {digest}, not "
                f"{tombstone.source_sha256}. If it is the same picture, write its digest into the line; if the picture "
                "has another name now, write its key; if it has left the source, remove the line"
            )
