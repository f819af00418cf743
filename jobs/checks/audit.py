"""Check one shard of every column of a split, byte by byte, against their manifests and records."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.shards.manifest import RECORDS_NAME, Manifest, Shard
from datasets.shards.records import CORE_COLUMNS, ShardError, read_member, read_table, shard_number
from datasets.shards.store import ShardStore
from datasets.tombstones import DAMAGED
from files.archives import ArchiveError, open_tree
from files.durable import file_digest
from files.objects import SilentStoreError, StoreConfig, StoreError
from files.pictures import IGNORE, RejectedImageError, decode, decode_grey
from masks.hole_ratio import BINS, hole_ratio, member_of_bin


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem.

    file: the shard, table, manifest or folder.
    key: of the record; "" if the problem is not about one record.
    problem: a text that continues "<file or key> ...".
    quarantine: status of a tombstone for the record, if its removal is the remedy; else "". It is the remedy if the
        stored bytes are those that the manifest lists, so that restoring the file would change nothing.
    """

    file: str
    key: str = ""
    problem: str
    quarantine: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnShard:
    """One shard of one column.

    folder: absolute folder of the column and split.
    column: name of the column.
    shard: as the manifest lists it.
    store: the store that it is in, if it is not in the folder.
    num_classes: number of classes of a column of labels; None if not known.
    """

    folder: Path
    column: str
    shard: Shard
    store: StoreConfig = field(default_factory=StoreConfig)
    num_classes: int | None = None

    @property
    def is_in_store(self) -> bool:
        """Return whether the tar is in the store: there is one, and the folder has no such file."""
        return bool(self.store.url) and not (self.folder / self.shard.name).exists()


@dataclass(frozen=True, kw_only=True)
class AuditTask:
    """The shards of one number, that of the images first."""

    shards: tuple[ColumnShard, ...]

    def without_store(self) -> AuditTask:
        """Return the task without the shards that are in a store."""
        return AuditTask(shards=tuple(shard for shard in self.shards if not shard.is_in_store))


@dataclass(frozen=True, kw_only=True)
class ShardAudit:
    """The result of one task.

    findings: the problems of its shards.
    records, bytes: how many were read.
    task: which task it was.
    is_silent: whether the store did not answer in time. Shards that were not read for that reason are no findings.
    """

    findings: tuple[Finding, ...]
    records: int
    bytes: int
    task: AuditTask
    is_silent: bool = False


# Table columns that only images have, with their types.
_IMAGE_COLUMNS = {
    "source": pa.types.is_string,
    "source_sha256": pa.types.is_binary,
    "width": pa.types.is_integer,
    "height": pa.types.is_integer,
}


def check_table(folder: Path, manifest: Manifest, *, remedy: str) -> None:
    """Compare `records.parquet` with the manifest beside it, so that every later reader finds what it expects.

    remedy: command that writes the folder again.
    Raises ShardError if a value or a table column is missing, or if a shard has another number of records.
    """
    path = folder / RECORDS_NAME
    table = read_table(folder, remedy=remedy)
    for name, has_type in _IMAGE_COLUMNS.items() if manifest.column == "image" else ():
        if name not in table.column_names or not has_type(table.schema.field(name).type):
            raise ShardError(f"{path} has no usable column {name}; run: {remedy}")
    for name in (*CORE_COLUMNS, *(_IMAGE_COLUMNS if manifest.column == "image" else ())):
        if table[name].null_count:
            raise ShardError(f"{path} lacks {table[name].null_count} values of {name}; run: {remedy}")
    counts = table.group_by("shard").aggregate([("key", "count_distinct")])
    actual = dict(zip(counts["shard"].to_pylist(), counts["key_count_distinct"].to_pylist(), strict=True))
    expected = {shard_number(shard.name): shard.records for shard in manifest.shards}
    if actual != expected:
        number = min(key for key in {*actual, *expected} if actual.get(key) != expected.get(key))
        raise ShardError(
            f"{path} has {actual.get(number, 0)} records of shard {number}, its manifest says "
            f"{expected.get(number, 0)}; run: {remedy}"
        )


_HOLES = {member_of_bin("mask", name).removesuffix(".png"): (low, high) for name, low, high in BINS}


def audit_shards(task: AuditTask) -> ShardAudit:
    """Read and check every byte of the shards of one number. Memory holds one member at a time."""
    findings: list[Finding] = []
    images: dict[str, tuple[int, int]] = {}
    stores: dict[StoreConfig, ShardStore] = {}
    num_records = num_bytes = 0
    is_silent = False
    for listed in task.shards:
        if is_silent and listed.is_in_store:  # each would wait as long as the first
            continue
        audited = _Shard(listed, stores)
        try:
            if listed.column == "image":
                images = {row["key"]: (row.get("height"), row.get("width")) for row in audited.rows}
                num_records, check = len(images), _check_image
            else:
                findings += audited.check_keys(list(images))
                check = partial(_check_map, images=images, listed=listed)
            with audited.local_file() as path:
                findings += audited.check_file(path)
                findings += audited.check_members(path, check)
        except (ShardError, StoreError) as error:
            findings.append(Finding(file=audited.where, problem=str(error)))
            is_silent = is_silent or isinstance(error, SilentStoreError)
        num_bytes += listed.shard.bytes
    return ShardAudit(findings=tuple(findings), records=num_records, bytes=num_bytes, task=task, is_silent=is_silent)


@dataclass(frozen=True)
class _Shard:
    """One tar and its rows of records.parquet.

    stores: the stores of all tars that are read together, so that they share a connection.
    """

    listed: ColumnShard
    stores: dict[StoreConfig, ShardStore]

    @property
    def shard(self) -> Shard:
        return self.listed.shard

    @cached_property
    def store(self) -> ShardStore | None:
        """Return the store that holds the tar; None if the folder holds it, or should."""
        config = self.listed.store
        return self.stores.setdefault(config, ShardStore(config)) if self.listed.is_in_store else None

    @property
    def where(self) -> str:
        """Return the tar's path, or its address in the store."""
        return self.store.url_of(self.shard) if self.store else str(self.listed.folder / self.shard.name)

    @contextmanager
    def local_file(self) -> Iterator[Path]:
        """Return a file with the current bytes of the tar: from the store, not from the cache."""
        if self.store:
            with self.store.copied(self.shard) as path:
                yield path
        else:
            yield self.listed.folder / self.shard.name

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the tar's rows of records.parquet."""
        return read_table(self.listed.folder, shard=shard_number(self.shard.name)).to_pylist()

    def check_file(self, path: Path) -> Iterator[Finding]:
        """Check the tar's size, digest and list of members."""
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
            open_tree(path)  # refuses tars on which tarfile would fail or loop
            with tarfile.open(path, "r:") as tar:
                present = {member.name: (member.offset_data, member.size) for member in tar}
        except (ArchiveError, tarfile.TarError, OSError) as error:
            yield self._finding(f"is no plain tar ({' '.join(str(error).split())})")
            return
        expected = {f"{row['key']}.{row['field']}": (row["offset"], row["length"]) for row in self.rows}
        for name in sorted(present.keys() - expected.keys()):
            yield self._finding(f"holds {name!r}, which is in no record")
        for name in sorted(expected.keys() - present.keys()):
            yield self._finding("its member is missing", name.split(".")[0])
        for name in sorted(present.keys() & expected.keys()):
            if present[name] != expected[name]:
                yield self._finding(f"member {name} is at {present[name]}, not {expected[name]}", name.split(".")[0])
        keys = len({row["key"] for row in self.rows})
        if keys != self.shard.records:
            yield self._finding(f"has {keys} records, its manifest says {self.shard.records}")

    def check_keys(self, keys: list[str]) -> Iterator[Finding]:
        """Check that the records are those of the images, in the same order."""
        own_keys = list(dict.fromkeys(row["key"] for row in self.rows))
        for key in sorted(set(own_keys) ^ set(keys)):
            yield self._finding("is in this column only" if key in own_keys else "is missing from this column", key)
        if own_keys != keys and set(own_keys) == set(keys):
            yield self._finding("its records are in another order than the images")

    def check_members(self, path: Path, check: Callable[[Mapping[str, Any], bytes], str]) -> Iterator[Finding]:
        """Check every member's digest and content.

        check: check(row, content) returns the problem of a member, or "".
        """
        if not path.is_file():
            return
        with path.open("rb") as file:
            for row in self.rows:
                try:
                    content = read_member(file, path, row)
                except ShardError:
                    yield self._finding(f"{row['field']} differs from its digest", row["key"])
                    continue
                if problem := check(row, content):
                    is_image = self.listed.column == "image"
                    yield self._finding(f"{row['field']} {problem}", row["key"], DAMAGED if is_image else "")

    def _finding(self, problem: str, key: str = "", quarantine: str = "") -> Finding:
        return Finding(file=self.where, key=key, problem=problem, quarantine=quarantine)


def _check_image(row: Mapping[str, Any], content: bytes) -> str:
    """Return the problem of a stored image, or ""."""
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
    """Return the problem of a stored edge map, label map or mask, or "".

    images: key -> height and width of the image.
    """
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
    """Return the problem if a mask's hole ratio is not in the bin that its member names, or ""."""
    low, high = _HOLES.get(field.removesuffix(".png"), (1, 0))
    ratio = hole_ratio(pixels // 255)
    return "" if low < ratio <= high else f"has hole ratio {ratio:.4f}, which is not in its bin"
