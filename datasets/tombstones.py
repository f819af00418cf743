"""Records that stay out of the shards, whatever the sources hold: a line each, in a file that git keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

from files.durable import write_durably
from files.errors import UserError

TAKEN_DOWN, DAMAGED, DUPLICATE = "taken down", "damaged", "duplicate"
STATUSES = (TAKEN_DOWN, DAMAGED, DUPLICATE)


class TombstoneError(UserError):
    """A line of the file of tombstones that cannot be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """One record that stays out, and why.

    dataset, key: the record. source, source_sha256: the file it was made from, and the digest of that file's bytes in
    hex. every_copy: whether whatever has these bytes stays out as well, under any key and in any data set. status: one
    of `STATUSES`, which manifests list. reason: in the words of whoever decided. date: of that, YYYY-MM-DD.
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
        for each in fields(self):
            kind = bool if each.name == "every_copy" else str
            if not isinstance(getattr(self, each.name), kind):
                raise ValueError(f"{each.name} must be {kind.__name__}, got {getattr(self, each.name)!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.source_sha256):
            raise ValueError(f"source_sha256 must be 64 hexadecimal digits, got {self.source_sha256!r}")
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        date.fromisoformat(self.date)


@dataclass(frozen=True)
class StayOut:
    """The statuses of one data set's keys and of source digests that stay out."""

    keys: Mapping[str, str]
    digests: Mapping[bytes, str]

    def status(self, key: str, source_sha256: bytes | None = None) -> str | None:
        """Why a record stays out, by its key or the digest of its source; None if it may stay."""
        return self.keys.get(key) or self.digests.get(source_sha256)


def read_tombstones(path: Path) -> tuple[Tombstone, ...]:
    """All tombstones, in the order they were set; none if there is no such file. Lines that start with # are comments.

    Raises TombstoneError.
    """
    found = []
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if line.startswith(b"#"):
            continue
        try:
            found.append(Tombstone(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise TombstoneError(f"{path}, line {number} is not a tombstone ({error}); restore it from git") from error
    return tuple(found)


def add_tombstones(path: Path, tombstones: Iterable[Tombstone]) -> None:
    """Append those that the file lacks, durably: after a kill the file is the old one or the new one."""
    there = read_tombstones(path)
    new = [tombstone for tombstone in dict.fromkeys(tombstones) if tombstone not in there]
    if new:
        lines = "".join(json.dumps(asdict(tombstone), sort_keys=True) + "\n" for tombstone in new)
        write_durably(path, _content(path) + lines.encode())


def _content(path: Path) -> bytes:
    """The file, its last line ended."""
    content = path.read_bytes() if path.is_file() else b""
    return content + b"\n" if content and not content.endswith(b"\n") else content


def stay_out(tombstones: Iterable[Tombstone], dataset: str) -> StayOut:
    """What must stay out of one data set. Where two tombstones meet, the first decides the status."""
    keys: dict[str, str] = {}
    digests: dict[bytes, str] = {}
    for tombstone in tombstones:
        if tombstone.dataset == dataset:
            keys.setdefault(tombstone.key, tombstone.status)
        if tombstone.every_copy:
            digests.setdefault(bytes.fromhex(tombstone.source_sha256), tombstone.status)
    return StayOut(keys, digests)
