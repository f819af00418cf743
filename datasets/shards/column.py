"""Columns: complete folders of shards, read record by record; every byte is compared with its digest before it is used.

Opening a column costs memory for the shards that are read, not for the data set: rows of `records.parquet` are taken
shard by shard, as records of those shards are asked for.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.shards.manifest import RECORDS_NAME, Manifest, Shard, read_manifest
from datasets.shards.records import (
    CORE_COLUMNS,
    KEYS_DIGEST,
    ShardError,
    as_shard_errors,
    check_columns,
    read_table,
    shard_name,
    shard_number,
)
from datasets.shards.store import ShardStore
from files.durable import file_digest
from files.objects import StoreConfig


@dataclass(frozen=True)
class _Places:
    """Where the records of one shard lie: keys of record 0, 1, ... and per field their offsets, lengths and digests."""

    keys: pa.Array
    fields: Mapping[str, tuple[list[int], list[int], pa.Array]]


class Column:
    """A complete folder of shards. Tars lie beside the manifest or, where they do not, in the store.

    keep_shards: of how many shards rows and files are kept at hand; reading goes from shard to shard, so twice the
        plan's window is plenty.
    Raises ManifestError when the folder is not complete, ShardError when a shard is missing or has another size or
    when `records.parquet` lacks a member, StoreError for an address that is not allowed.
    Safe to hand to forked or spawned workers: files are opened where they are first read.
    """

    def __init__(
        self, folder: Path, *, store: StoreConfig | None = None, keep_shards: int = 64, remedy: str = "dvc repro"
    ) -> None:
        self.folder = folder
        self.remedy = remedy
        self.keep_shards = keep_shards
        self.manifest: Manifest = read_manifest(folder, remedy=remedy)
        self._store = ShardStore(store) if store and store.url else None
        self._at_hand = _AtHand(os.getpid())
        self._remote = [not self._is_beside(number) for number in range(len(self.manifest.shards))]
        self._check_records()

    @cached_property
    def table(self) -> pa.Table:
        """`records.parquet`: a row per member, in shard order. All of it: for small columns and for audits."""
        return read_table(self.folder, remedy=self.remedy)

    @property
    def keys_sha256(self) -> str | None:
        """Digest of all keys in their order, as `write_tables` leaves it; None where the writer left none."""
        return (self._parquet.metadata.metadata or {}).get(KEYS_DIGEST.encode(), b"").decode() or None

    @cached_property
    def keys(self) -> pa.Array:
        """Every record's key, in shard order. All of them: `key` reads one."""
        return pa.concat_arrays([self.keys_of(shard) for shard in range(len(self.manifest.shards))])

    @cached_property
    def shard_sizes(self) -> list[int]:
        """Number of records in each shard."""
        return [shard.records for shard in self.manifest.shards]

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the members that every record has, sorted."""
        return tuple(sorted(set(self._rows(0, ("field",))["field"].to_pylist())))

    @property
    def field(self) -> str:
        """The name of the one member that every record of this column has.

        Raises ShardError for a column with several.
        """
        if len(self.fields) != 1:
            raise ShardError(f"{self.folder} has members {', '.join(self.fields)} where one was expected")
        return self.fields[0]

    def key(self, index: int) -> str:
        """The key of record `index`."""
        shard, place = self.locate(index)
        return self._places(shard).keys[place].as_py()

    def locate(self, index: int) -> tuple[int, int]:
        """(shard, place in it) of record `index`. Raises IndexError beyond the last record."""
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"{self.folder} has records 0 to {self._ends[-1] - 1}, not {index}")
        shard = bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.shard_sizes[shard]

    def records_of(self, shard: int) -> range:
        """Numbers of the records that stand in one shard."""
        return range(self._ends[shard] - self.shard_sizes[shard], self._ends[shard])

    def keys_of(self, shard: int) -> pa.Array:
        """The keys of one shard's records, in their order.

        Raises ShardError naming the first record that lacks a member.
        """
        rows = self._rows(shard, ("key", "field"))
        return self._by_field(shard, rows)[self.fields[0]]["key"].combine_chunks()

    def read(self, index: int, field: str | None = None) -> bytes:
        """The bytes of one member of record `index`, compared with their digest; `field` may be left out if only one.

        Raises ShardError that names the shard and the record when they differ, StoreError when the store does not
        give the shard.
        """
        field = field or self.field
        shard, place = self.locate(index)
        offsets, lengths, digests = self._places(shard).fields[field]
        offset, length, wanted = offsets[place], lengths[place], digests[place].as_py()
        content = os.pread(self._open(shard), length, offset)
        found = hashlib.sha256(content)
        if found.digest() != wanted and self._remote[shard]:
            self._forget(shard)  # the local copy has changed since it was compared with its digest
            content = os.pread(self._open(shard), length, offset)
            found = hashlib.sha256(content)
        if found.digest() != wanted:
            where = self._store.url_of(self.manifest.shards[shard]) if self._remote[shard] else self._path(shard)
            raise ShardError(
                f"{where}: {self.key(index)}.{field} has digest {found.hexdigest()}, {self.folder / RECORDS_NAME} says "
                f"{wanted.hex()}; restore the shard or run: {self.remedy}"
            )
        return content

    def verify(self) -> None:
        """Compare every shard beside the manifest with its digest, and every one in the store with its size.

        What is in the store is compared with its digest when it is fetched. Raises ShardError or StoreError naming the
        first that differs.
        """
        for number, shard in enumerate(self.manifest.shards):
            if not self._remote[number] and (digest := file_digest(self._path(number))) != shard.sha256:
                raise ShardError(
                    f"{self._path(number)} has digest {digest}, its manifest says {shard.sha256}; run: {self.remedy}"
                )
        if self._store:
            self._store.check_sizes([s for s, remote in zip(self.manifest.shards, self._remote, strict=True) if remote])

    @property
    def is_remote(self) -> bool:
        """Whether any shard is read from the store."""
        return any(self._remote)

    def prefetch(self, shard: int) -> None:
        """Bring a shard into the store's cache; one that another process is fetching is left to it."""
        if self._remote[shard]:
            self._store.prefetch(self.manifest.shards[shard])

    def _is_beside(self, number: int) -> bool:
        shard, path = self.manifest.shards[number], self._path(number)
        if shard.name != shard_name(self.manifest.column, shard_number(shard.name)):
            raise ShardError(f"{self.folder}: its manifest lists {shard.name}, no {self.manifest.column}")
        size = path.stat().st_size if path.is_file() else None
        if size == shard.bytes or (size is None and self._store):
            return size is not None
        found = "is missing" if size is None else f"has {size} bytes"
        raise ShardError(f"{path} {found}, its manifest says {shard.bytes} bytes; run: {self.remedy}")

    def _check_records(self) -> None:
        """Raise ShardError unless `records.parquet` has, shard by shard, a row for every member of every record."""
        path, found = self.folder / RECORDS_NAME, self._parquet.metadata
        if found.num_row_groups != len(self.manifest.shards):
            raise ShardError(
                f"{path} has {found.num_row_groups} row groups for {len(self.manifest.shards)} shards; "
                f"run: {self.remedy}"
            )
        where = self._parquet.schema_arrow.get_field_index("field")
        for number, records in enumerate(self.shard_sizes):
            rows = found.row_group(number)
            names = rows.column(where).statistics
            complete = rows.num_rows == records * len(self.fields) and names is not None
            if not complete or (names.min, names.max) != (self.fields[0], self.fields[-1]):
                self._places(number)  # names the first record and member that is wrong
                raise ShardError(f"{path}: shard {number} has members that others have not; run: {self.remedy}")

    def _path(self, number: int) -> Path:
        return self.folder / self.manifest.shards[number].name

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.shard_sizes))

    @property
    def _here(self) -> _AtHand:
        """What this process has open; a forked one starts anew."""
        if self._at_hand.pid != os.getpid():
            self._at_hand = _AtHand(os.getpid())
        return self._at_hand

    @property
    def _parquet(self) -> pq.ParquetFile:
        here = self._here
        if here.parquet is None:
            path = self.folder / RECORDS_NAME
            with as_shard_errors(path, self.remedy):
                here.parquet = pq.ParquetFile(path, memory_map=True)
                check_columns(here.parquet.schema_arrow, path, self.remedy)
        return here.parquet

    def _rows(self, shard: int, columns: Sequence[str] = CORE_COLUMNS) -> pa.Table:
        with as_shard_errors(self.folder / RECORDS_NAME, self.remedy):
            return self._parquet.read_row_group(shard, columns=list(columns), use_threads=False).combine_chunks()

    def _places(self, shard: int) -> _Places:
        """Rows of one shard, checked to have each of the column's fields for each record."""
        places = self._here.places
        if shard not in places:
            places[shard] = self._checked_places(shard)
            if len(places) > self.keep_shards:
                places.popitem(last=False)
        places.move_to_end(shard)
        return places[shard]

    def _checked_places(self, shard: int) -> _Places:
        rows = self._rows(shard)
        self._check_inside(shard, rows)
        fields = self._by_field(shard, rows)
        return _Places(
            fields[self.fields[0]]["key"].combine_chunks(),
            {
                field: (rows["offset"].to_pylist(), rows["length"].to_pylist(), rows["sha256"].combine_chunks())
                for field, rows in fields.items()
            },
        )

    def _check_inside(self, shard: int, rows: pa.Table) -> None:
        """Raise ShardError unless every member lies inside its shard, or any length could be asked of memory."""
        size = self.manifest.shards[shard].bytes
        with as_shard_errors(self.folder / RECORDS_NAME, self.remedy):
            # Not by to_numpy, which imports pandas: a second, before the first record of a process.
            columns = (rows[name].combine_chunks() for name in ("shard", "offset", "length"))
            numbers, offsets, lengths = (np.from_dlpack(column) for column in columns)
        inside = (offsets >= 0) & (lengths >= 0) & (lengths <= size) & (offsets <= size - np.minimum(lengths, size))
        if not inside.all() or not (numbers == shard_number(self.manifest.shards[shard].name)).all():
            raise ShardError(f"{self.folder / RECORDS_NAME} places members outside their shards; run: {self.remedy}")

    def _by_field(self, shard: int, rows: pa.Table) -> dict[str, pa.Table]:
        """A shard's rows by field, each field's with the same keys in the same order."""
        if len(self.fields) == 1 and pc.unique(rows["field"]).to_pylist() == list(self.fields):
            fields = {self.field: rows}  # comparing with a text would import pandas, too
        else:
            fields = {field: rows.filter(pc.equal(rows["field"], field)) for field in self.fields}
        keys = fields[self.fields[0]]["key"]
        for field, ours in fields.items():
            if len(ours) != self.shard_sizes[shard] or not ours["key"].equals(keys):
                raise ShardError(self._lacking(shard, rows, field))
        return fields

    def _lacking(self, shard: int, rows: pa.Table, field: str) -> str:
        """What is wrong with the rows of one shard."""
        members: dict[str, list[str]] = {}
        for key, name in zip(rows["key"].to_pylist(), rows["field"].to_pylist(), strict=True):
            members.setdefault(key, []).append(name)
        wrong = {key: names for key, names in members.items() if sorted(names) != list(self.fields)}
        what = (
            f"record {next(iter(wrong))} has members {', '.join(sorted(next(iter(wrong.values()))))} where others have "
            f"{', '.join(self.fields)}"
            if wrong
            else f"there are {len(members)} records with {field}, the manifest says {self.shard_sizes[shard]}"
        )
        return f"{self.folder / RECORDS_NAME}, shard {self.manifest.shards[shard].name}: {what}; run: {self.remedy}"

    def _open(self, shard: int) -> int:
        files = self._here.files
        if shard not in files:
            files[shard] = (
                self._store.open(self.manifest.shards[shard])
                if self._remote[shard]
                else os.open(self._path(shard), os.O_RDONLY)
            )
            if len(files) > self.keep_shards:
                os.close(files.popitem(last=False)[1])
        files.move_to_end(shard)
        return files[shard]

    def _forget(self, shard: int) -> None:
        os.close(self._here.files.pop(shard))
        self._store.forget(self.manifest.shards[shard])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_at_hand": _AtHand(0)}


def read_shard(
    folder: Path, shard: Shard, *, store: StoreConfig | None = None, remedy: str = "dvc repro"
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members, by field, of every record of one tar in order, once the whole of it matches its digest.

    The tar lies in the folder or, where it does not, in the store. Needs no `records.parquet`, whose size is that of
    the data set. Raises ShardError when the tar is missing or has another digest, StoreError when the store does not
    give it.
    """
    path = folder / shard.name
    is_remote = store is not None and store.url is not None and not path.exists()
    if not is_remote and not path.is_file():
        raise ShardError(f"{path} is missing; run: {remedy}")
    with os.fdopen(ShardStore(store).open(shard), "rb") if is_remote else path.open("rb") as file:
        if (digest := hashlib.file_digest(file, "sha256").hexdigest()) != shard.sha256:
            raise ShardError(f"{path} has digest {digest}, its manifest says {shard.sha256}; run: {remedy}")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = ((*_key_and_field(member.name), tar.extractfile(member).read()) for member in tar)
            for key, group in groupby(members, key=lambda member: member[0]):
                yield key, {field: content for _, field, content in group}


def _key_and_field(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the base name."""
    folders, slash, base = name.rpartition("/")
    key, _, field = base.partition(".")
    return folders + slash + key, field


class _AtHand:
    """What one process keeps open of a column, the longest unused first."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.parquet: pq.ParquetFile | None = None
        self.files: OrderedDict[int, int] = OrderedDict()
        self.places: OrderedDict[int, _Places] = OrderedDict()


def check_alignment(images: Column, column: Column) -> None:
    """Refuse a column that was made from other images, or that lacks one of their keys.

    Raises ShardError naming both digests, or the first key that differs.
    """
    if column.manifest.made_from != images.manifest.digest:
        raise ShardError(
            f"{column.folder} was made from images {column.manifest.made_from}, but {images.folder} is "
            f"{images.manifest.digest}; run: {column.remedy}"
        )
    if images.keys_sha256 and images.keys_sha256 == column.keys_sha256 and images.shard_sizes == column.shard_sizes:
        return
    for shard, (records, theirs) in enumerate(zip(images.shard_sizes, column.shard_sizes, strict=False)):
        ours, others = images.keys_of(shard), column.keys_of(shard)
        if records != theirs or not ours.equals(others):
            missing = sorted(set(ours.to_pylist()) ^ set(others.to_pylist()))
            what = f"{missing[0]} is in one of them only" if missing else "the order differs"
            raise ShardError(
                f"{column.folder} and {images.folder} hold other records in shard {shard}: {what}; run: {column.remedy}"
            )
    if len(images.shard_sizes) != len(column.shard_sizes):
        raise ShardError(
            f"{column.folder} has {len(column.shard_sizes)} shards, {images.folder} has {len(images.shard_sizes)}; "
            f"run: {column.remedy}"
        )
