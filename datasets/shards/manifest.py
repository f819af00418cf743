"""The manifest of one column of one split: counts, digests, rejected sources. Its presence means complete."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from files.durable import file_digest, write_durably
from files.errors import UserError
from files.left_out import LeftOut

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
RECORDS_NAME = "records.parquet"

_ONLY_IF_ANY = {"left_out", "metadata_dropped"}  # fields that a manifest without any such file does not have


class ManifestError(UserError):
    """A manifest is missing or unreadable, or differs from the files beside it."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar: its file name, its numbers of records and bytes, and its SHA-256 in hex."""

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
    """A source that did not become a record, and the reason in a few words."""

    name: str
    reason: str


def in_order(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """Return rejected sources in the order of manifests, by name: the order of rejection does not matter."""
    return tuple(sorted(rejected, key=lambda reject: (reject.name, reject.reason)))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of one folder of shards.

    dataset, split, licence: of the images.
    column: "image", "edge", "mask", ...
    shards: in the order of their numbers.
    records_sha256: digest of `records.parquet`, which has the digest of every member.
    made_from: for a derived column, the digest of the images' manifest; empty for images.
    parameters: everything but sources and code that decides the content.
    rejected: sources that did not become records, by name.
    left_out: files of the data set that are no sources, by rule; of all splits, for images.
    metadata_dropped: number of sources whose metadata could not be read in full when they were ingested.
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
    left_out: tuple[LeftOut, ...] = ()
    metadata_dropped: int = 0
    schema_version: int = SCHEMA_VERSION

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    def to_json(self) -> bytes:
        """Return the bytes of the manifest's file. Equal manifests have equal bytes."""
        return _as_json({**self._entries(), "digest": self.digest})

    @property
    def digest(self) -> str:
        """SHA-256 of all other entries of the manifest's file, in hex: the identity of everything that it lists."""
        return hashlib.sha256(_as_json(self._entries())).hexdigest()

    def _entries(self) -> dict[str, Any]:
        counts = {"records": self.records, "bytes": sum(shard.bytes for shard in self.shards)}
        return {name: value for name, value in asdict(self).items() if value or name not in _ONLY_IF_ANY} | counts


def _as_json(entries: Mapping[str, Any]) -> bytes:
    return (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()


_MANIFEST = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, which declares the folder complete. Call this last."""
    write_durably(folder / MANIFEST_NAME, manifest.to_json())


def read_manifest(folder: Path, *, remedy: str = "dvc repro") -> Manifest:
    """Read the manifest of a folder and compare `records.parquet` with its digest.

    remedy: command that writes the folder again, for error messages.
    Raises ManifestError that names the file, the problem and the remedy.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing, so {folder} is not complete; run: {remedy}") from None
    manifest = parse_manifest(content, path, remedy=remedy)
    _check_records(folder / RECORDS_NAME, manifest, remedy)
    return manifest


def parse_manifest(content: bytes, path: Path, *, remedy: str = "dvc repro") -> Manifest:
    """Read the bytes of a manifest. path: where they are from, for messages. Raises ManifestError if it was edited."""
    try:
        entries = json.loads(content)
        if (version := entries.pop("schema_version")) != SCHEMA_VERSION:
            raise ManifestError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}; run: {remedy}")
        for computed in ("records", "bytes", "digest"):
            del entries[computed]
        manifest = _MANIFEST.validate_json(json.dumps(entries), strict=True, extra="forbid")
    except ManifestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(f"{path} is not a manifest ({' '.join(str(error).split())}); run: {remedy}") from error
    if manifest.to_json() != content:
        raise ManifestError(f"{path} was edited: its digest or its counts are not those of its entries; run: {remedy}")
    return manifest


def _check_records(records: Path, manifest: Manifest, remedy: str) -> None:
    if not records.is_file():
        raise ManifestError(f"{records} is missing; run: {remedy}")
    if (digest := file_digest(records)) != manifest.records_sha256:
        raise ManifestError(
            f"{records} has digest {digest}, its manifest says {manifest.records_sha256}; run: {remedy}"
        )
