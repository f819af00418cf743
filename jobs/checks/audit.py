"""One shard of every column of a split, read whole and held against its manifests and records."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.shards.manifest import Shard
from datasets.shards.records import ShardError, read_member, read_table, shard_number
from datasets.shards.store import ShardStore
from datasets.tombstones import DAMAGED
from files.archives import ArchiveError, open_tree
from files.durable import file_digest
from files.objects import StoreConfig, StoreError
from files.pictures import IGNORE, RejectedImageError, decode, decode_grey
from masks.hole_ratio import BINS, hole_ratio, member_of_bin


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong. file: shard, table, manifest or folder. key: of the record, if it is about one.

    quarantine: the status with which `takedown` can take the record out, where that helps: where the stored bytes are
    those that the manifest lists, so that restoring the file would not.
    """

    file: str
    key: str = ""
    problem: str
    quarantine: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnShard:
    """One shard as its manifest lists it. store: where it lies if not in the folder. num_classes: of a labels column,
    if it says so."""

    folder: Path
    column: str
    shard: Shard
    store: StoreConfig = field(default_factory=StoreConfig)
    num_classes: int | None = None


@dataclass(frozen=True, kw_only=True)
class AuditTask:
    """The shards of one number, the images' first."""

    shards: tuple[ColumnShard, ...]


@dataclass(frozen=True, kw_only=True)
class ShardAudit:
    """What was found in a task's shards, and how much was read."""

    findings: tuple[Finding, ...]
    records: int
    bytes: int


_HOLES = {member_of_bin("mask", name).removesuffix(".png"): (low, high) for name, low, high in BINS}


def audit_shards(task: AuditTask) -> ShardAudit:
    """Read every byte of the shards of one number. Holds one image and its maps at a time."""
    findings: list[Finding] = []
    images: dict[str, tuple[int, int]] = {}
    stores: dict[StoreConfig, ShardStore] = {}
    num_records = num_bytes = 0
    for listed in task.shards:
        one = _Shard(listed, stores)
        try:
            if listed.column == "image":
                images = {row["key"]: (row.get("height"), row.get("width")) for row in one.rows}
                num_records, check = len(images), _check_image
            else:
                findings += one.check_keys(list(images))
                check = partial(_check_map, images=images, listed=listed)
            with one.at_hand() as path:
                findings += one.check_file(path)
                findings += one.check_members(path, check)
        except (ShardError, StoreError) as error:
            findings.append(Finding(file=one.where, problem=str(error)))
        num_bytes += listed.shard.bytes
    return ShardAudit(findings=tuple(findings), records=num_records, bytes=num_bytes)


@dataclass(frozen=True)
class _Shard:
    """One tar, with what is written about it. stores: of all tars that are read together, so that they share a
    connection."""

    listed: ColumnShard
    stores: dict[StoreConfig, ShardStore]

    @property
    def shard(self) -> Shard:
        return self.listed.shard

    @cached_property
    def store(self) -> ShardStore | None:
        """The store that it lies in; None if it lies, or should lie, in the folder."""
        beside, config = (self.listed.folder / self.shard.name).exists(), self.listed.store
        return None if beside or not config.url else self.stores.setdefault(config, ShardStore(config))

    @property
    def where(self) -> str:
        return self.store.url_of(self.shard) if self.store else str(self.listed.folder / self.shard.name)

    @contextmanager
    def at_hand(self) -> Iterator[Path]:
        """A file with its bytes as they are now: of a store, not of the cache."""
        if self.store:
            with self.store.copied(self.shard) as path:
                yield path
        else:
            yield self.listed.folder / self.shard.name

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return read_table(self.listed.folder, shard=shard_number(self.shard.name)).to_pylist()

    def check_file(self, path: Path) -> Iterator[Finding]:
        """The tar's digest and its list of members."""
        if not path.is_file():
            yield self._finding("is missing")
            return
        if (size := path.stat().st_size) != self.shard.bytes:
            yield self._finding(f"has {size} bytes, its manifest says {self.shard.bytes}")
        elif (digest := file_digest(path)) != self.shard.sha256:
            yield self._finding(f"has digest {digest}, its manifest says {self.shard.sha256}")
        yield from self._check_list(path)

    def _check_list(self, path: Path) -> Iterator[Finding]:
        try:
            open_tree(path)  # refuses what would lead tarfile astray
            with tarfile.open(path, "r:") as tar:
                found = {member.name: (member.offset_data, member.size) for member in tar}
        except (ArchiveError, tarfile.TarError, OSError) as error:
            yield self._finding(f"is no plain tar ({' '.join(str(error).split())})")
            return
        expected = {f"{row['key']}.{row['field']}": (row["offset"], row["length"]) for row in self.rows}
        for name in sorted(found.keys() - expected.keys()):
            yield self._finding(f"holds {name!r}, which is in no record")
        for name in sorted(expected.keys() - found.keys()):
            yield self._finding("its member is missing", name.split(".")[0])
        for name in sorted(found.keys() & expected.keys()):
            if found[name] != expected[name]:
                yield self._finding(f"member {name} is at {found[name]}, not {expected[name]}", name.split(".")[0])
        keys = len({row["key"] for row in self.rows})
        if keys != self.shard.records:
            yield self._finding(f"has {keys} records, its manifest says {self.shard.records}")

    def check_keys(self, keys: list[str]) -> Iterator[Finding]:
        """Whether the records are those of the images, in their order."""
        own = list(dict.fromkeys(row["key"] for row in self.rows))
        for key in sorted(set(own) ^ set(keys)):
            yield self._finding("is in this column only" if key in own else "is missing from this column", key)
        if own != keys and set(own) == set(keys):
            yield self._finding("its records are in another order than the images")

    def check_members(self, path: Path, check: Callable[[Mapping[str, Any], bytes], str]) -> Iterator[Finding]:
        """Every member's digest, and its content by `check(row, content)`, which returns what is wrong or ""."""
        if not path.is_file():
            return
        with path.open("rb") as file:
            for row in self.rows:
                try:
                    content = read_member(file, path, row)
                except ShardError:
                    yield self._finding(f"{row['field']} is not what its digest says", row["key"])
                    continue
                if problem := check(row, content):
                    is_image = self.listed.column == "image"
                    yield self._finding(f"{row['field']} {problem}", row["key"], DAMAGED if is_image else "")

    def _finding(self, problem: str, key: str = "", quarantine: str = "") -> Finding:
        return Finding(file=self.where, key=key, problem=problem, quarantine=quarantine)


def _check_image(row: Mapping[str, Any], content: bytes) -> str:
    try:
        height, width = decode(content, minimum_side=1).shape[:2]
    except RejectedImageError as error:
        return f"does not decode: {error}"
    if (height, width) != (row.get("height"), row.get("width")):
        return f"is {width} x {height}, its record says {row.get('width')} x {row.get('height')}"
    return ""


def _check_map(
    row: Mapping[str, Any], content: bytes, *, images: Mapping[str, tuple[int, int]], listed: ColumnShard
) -> str:
    try:
        pixels = decode_grey(content)
    except RejectedImageError as error:
        return f"does not decode: {error}"
    if pixels.shape != images.get(row["key"], pixels.shape):
        height, width = images[row["key"]]
        return f"is {pixels.shape[1]} x {pixels.shape[0]}, its image {width} x {height}"
    if listed.column == "semantics":
        label = int(pixels.max(where=pixels != IGNORE, initial=0))
        too_high = listed.num_classes is not None and label >= listed.num_classes
        return f"has label {label}, but there are {listed.num_classes} classes" if too_high else ""
    if not np.isin(pixels, (0, 255)).all():
        return "has values other than 0 and 255"
    return _check_bin(row["field"], pixels) if listed.column == "mask" else ""


def _check_bin(field: str, pixels: np.ndarray) -> str:
    """Whether a mask's hole ratio lies in the bin that its member names."""
    low, high = _HOLES.get(field.removesuffix(".png"), (1, 0))
    ratio = hole_ratio(pixels // 255)
    return "" if low < ratio <= high else f"has hole ratio {ratio:.4f}, which is not in its bin"
