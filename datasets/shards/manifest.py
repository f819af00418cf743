"""The manifest of one column of one split: counts, digests, rejected sources. Its presence means complete."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from files.durable import file_digest, write_durably
from files.errors import UserError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
RECORDS_NAME = "records.parquet"


class ManifestError(UserError):
    """A manifest is missing, unreadable, or disagrees with the files beside it."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar: its file name, how many records and bytes it holds, and its SHA-256."""

    name: str
    records: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+-[0-9]{6,}\.tar", self.name, re.ASCII):
            raise ValueError(f"{self.name!r} is not the name of a shard")
        if not 1 <= self.records <= self.bytes < 2**62:
            raise ValueError(f"shard {self.name!r} cannot have {self.records} records in {self.bytes} bytes")


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A source that did not become a record, and why."""

    name: str
    reason: str


def in_order(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """The order in which manifests list them: by name, so that it does not matter when each was rejected."""
    return tuple(sorted(rejected, key=lambda reject: (reject.name, reject.reason)))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one folder of shards holds.

    column: "image", "edge", "mask", ...
    records_sha256: digest of `records.parquet`, which holds the digest of every record.
    made_from: digest of the manifest of the images a column was made from; empty for images.
    parameters: everything the content depends on beside the sources.
    """

    dataset: str
    split: str
    column: str
    licence: str
    shards: tuple[Shard, ...]
    records_sha256: str
    made_from: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    def to_json(self) -> bytes:
        """The manifest's file, byte for byte the same for the same content."""
        counts = {"records": self.records, "bytes": sum(shard.bytes for shard in self.shards)}
        return (json.dumps({**asdict(self), **counts}, indent=2, sort_keys=True) + "\n").encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's file: the identity of everything it lists."""
        return hashlib.sha256(self.to_json()).hexdigest()


_MANIFEST = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Declare a folder complete. Call last."""
    write_durably(folder / MANIFEST_NAME, manifest.to_json())


def read_manifest(folder: Path, *, remedy: str = "dvc repro") -> Manifest:
    """The manifest of a folder, checked against its schema and against `records.parquet`.

    Raises ManifestError that names the file, what is wrong and the command that makes it anew.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing, so {folder} is not complete; run: {remedy}") from None
    try:
        found = json.loads(content)
        version = found.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}; run: {remedy}")
        counts = (found.pop("records"), found.pop("bytes"))
        manifest = _MANIFEST.validate_json(json.dumps(found), strict=True, extra="forbid")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"{path} is not a manifest ({' '.join(str(error).split())}); run: {remedy}") from error
    if manifest.to_json() != content or counts[0] != manifest.records:
        raise ManifestError(f"{path} was edited: its counts do not add up; run: {remedy}")
    records = folder / RECORDS_NAME
    if not records.is_file():
        raise ManifestError(f"{records} is missing; run: {remedy}")
    if (digest := file_digest(records)) != manifest.records_sha256:
        raise ManifestError(
            f"{records} has digest {digest}, its manifest says {manifest.records_sha256}; run: {remedy}"
        )
    return manifest
