"""Tombstones: records that stay out of the shards although a source has them. One per line of a file in git."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

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

    Raises TombstoneError that names the first line which is not a tombstone.
    """
    tombstones = []
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if line.startswith(b"#"):
            continue
        try:
            tombstones.append(Tombstone(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise TombstoneError(f"{path}, line {number} is not a tombstone ({error}); restore it from git") from error
    return tuple(tombstones)


def add_tombstones(path: Path, tombstones: Iterable[Tombstone]) -> None:
    """Append the tombstones that the file lacks. After a kill the file is either the old one or the new one."""
    present = read_tombstones(path)
    new = [tombstone for tombstone in dict.fromkeys(tombstones) if tombstone not in present]
    if new:
        lines = "".join(json.dumps(asdict(tombstone), sort_keys=True) + "\n" for tombstone in new)
        write_durably(path, _content(path) + lines.encode())


def _content(path: Path) -> bytes:
    """Return the content of the file, with the end of the last line added if it is missing."""
    content = path.read_bytes() if path.is_file() else b""
    return content + b"\n" if content and not content.endswith(b"\n") else content


def stay_out(tombstones: Iterable[Tombstone], dataset: str) -> StayOut:
    """Select the tombstones that apply to one data set. Of two with the same key or digest, the first counts."""
    keys: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for tombstone in tombstones:
        if tombstone.dataset == dataset:
            keys.setdefault(tombstone.key, tombstone.status)
        if tombstone.every_copy:
            digests.setdefault(bytes.fromhex(tombstone.source_sha256), tombstone.status)
    return StayOut(keys, digests)
