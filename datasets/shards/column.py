"""Columns: complete folders of shards, read record by record. Every member is compared with its digest before use.

Opening a column takes memory for the shards that are read, not for the data set: rows of `records.parquet` are read
shard by shard, as their records are asked for.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.shards.expectation import ANYTHING, Expectation
from datasets.shards.manifest import RECORDS_NAME, Manifest, read_manifest
from datasets.shards.records import ShardError, read_table, shard_name, shard_number
from datasets.shards.rows import RecordsFile, Rows
from datasets.shards.store import ShardStore
from files.durable import file_digest
from files.objects import StoreConfig


class Column:
    """A complete folder of shards. A tar is beside the manifest or else in the store.

    folder: the folder of one split.
    store: configuration of the store; None if all tars are beside the manifest.
    keep_shards: number of shards whose rows and open files are kept. Reading goes from shard to shard, so twice the
        plan's window is enough.
    remedy: command that writes the column again, for error messages.
    expected: what the column must be.
    Raises ManifestError if the folder is not complete, ShardError if it holds another column, a shard is missing or has
    another size, or `records.parquet` lacks a member, StoreError if the store's address is not allowed.
    Safe to pass to forked or spawned workers: each process opens its own files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: StoreConfig | None = None,
        keep_shards: int = 64,
        remedy: str = "dvc repro",
        expected: Expectation = ANYTHING,
    ) -> None:
        self.folder = folder
        self.remedy = remedy
        self.keep_shards = keep_shards
        self.manifest: Manifest = read_manifest(folder, remedy=remedy)
        expected.check(self.manifest, folder, remedy)
        self._store = ShardStore(store) if store and store.url else None
        self._remote = [not self._is_beside_manifest(number) for number in range(len(self.manifest.shards))]
        self._open_files = _OpenFiles(os.getpid())
        self._fields: tuple[str, ...] | None = None
        self._records_file().check()
        self._fields = self._records_file().fields

    @cached_property
    def table(self) -> pa.Table:
        """All of `records.parquet`, a row per member in shard order: for small columns and for audits."""
        return read_table(self.folder, remedy=self.remedy)

    @property
    def keys_sha256(self) -> str | None:
        """Digest of all keys in their order, see `write_tables`; None if the writer left none."""
        return self._records_file().keys_sha256

    @cached_property
    def keys(self) -> pa.Array:
        """All keys, in shard order. `key` reads one."""
        return pa.concat_arrays([self.keys_of(shard) for shard in range(len(self.manifest.shards))])

    @cached_property
    def shard_sizes(self) -> list[int]:
        """Number of records in each shard."""
        return [shard.records for shard in self.manifest.shards]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the members that every record has, sorted."""
        return self._fields

    @property
    def field(self) -> str:
        """Name of the only member of every record. Raises ShardError if records have several."""
        if len(self.fields) != 1:
            raise ShardError(f"{self.folder} has members {', '.join(self.fields)} where one was expected")
        return self.fields[0]

    @property
    def is_remote(self) -> bool:
        """Return whether any shard is read from the store."""
        return any(self._remote)

    def key(self, index: int) -> str:
        """Return the key of record `index`."""
        shard, place = self.locate(index)
        return self._rows(shard).keys[place].as_py()

    def locate(self, index: int) -> tuple[int, int]:
        """Return the shard of record `index` and its place in the shard. Raises IndexError past the last record."""
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"{self.folder} has records 0 to {self._ends[-1] - 1}, not {index}")
        shard = bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.shard_sizes[shard]

    def records_of(self, shard: int) -> range:
        """Return the indices of one shard's records."""
        return range(self._ends[shard] - self.shard_sizes[shard], self._ends[shard])

    def keys_of(self, shard: int) -> pa.Array:
        """Read the keys of one shard's records, in order.

        Raises ShardError that names the first record that lacks a member.
        """
        return self._records_file().keys(shard)

    def read(self, index: int, field: str | None = None) -> bytes:
        """Read one member of record `index` and compare it with its digest.

        field: name of the member; may be omitted if records have only one.
        Raises ShardError with the shard and the record if the digests differ, StoreError if the store does not give
        the shard.
        """
        field = field or self.field
        shard, place = self.locate(index)
        offset, length, expected = self._rows(shard).place(place, field)
        content = os.pread(self._open(shard), length, offset)
        digest = hashlib.sha256(content)
        if digest.digest() != expected and self._remote[shard]:
            self._forget(shard)  # the cached copy has changed since it was fetched; fetch it again
            content = os.pread(self._open(shard), length, offset)
            digest = hashlib.sha256(content)
        if digest.digest() != expected:
            raise ShardError(
                f"{self._address(shard)}: {self.key(index)}.{field} has digest {digest.hexdigest()}, "
                f"{self.folder / RECORDS_NAME} says {expected.hex()}; restore the shard or run: {self.remedy}"
            )
        return content

    def verify(self) -> None:
        """Compare every shard beside the manifest with its digest, and every shard in the store with its size.

        A shard in the store is compared with its digest when it is fetched.
        Raises ShardError or StoreError that names the first shard that differs.
        """
        for number, shard in enumerate(self.manifest.shards):
            if not self._remote[number] and (digest := file_digest(self._path(number))) != shard.sha256:
                raise ShardError(
                    f"{self._path(number)} has digest {digest}, its manifest says {shard.sha256}; run: {self.remedy}"
                )
        if self._store:
            remote = [shard for number, shard in enumerate(self.manifest.shards) if self._remote[number]]
            self._store.check_sizes(remote)

    def prefetch(self, shard: int) -> None:
        """Fetch a shard of the store into the cache, unless another process is fetching it."""
        if self._remote[shard]:
            self._store.prefetch(self.manifest.shards[shard])

    def _is_beside_manifest(self, number: int) -> bool:
        """Return whether a tar is beside the manifest; raises ShardError if it should be but is not, or differs."""
        shard, path = self.manifest.shards[number], self._path(number)
        if shard.name != shard_name(self.manifest.column, shard_number(shard.name)):
            raise ShardError(f"{self.folder}: its manifest lists {shard.name}, no {self.manifest.column}")
        size = path.stat().st_size if path.is_file() else None
        if size == shard.bytes or (size is None and self._store):
            return size is not None
        problem = "is missing" if size is None else f"has {size} bytes"
        raise ShardError(f"{path} {problem}, its manifest says {shard.bytes} bytes; run: {self.remedy}")

    def _path(self, number: int) -> Path:
        return self.folder / self.manifest.shards[number].name

    def _address(self, number: int) -> str | Path:
        return self._store.url_of(self.manifest.shards[number]) if self._remote[number] else self._path(number)

    @cached_property
    def _ends(self) -> list[int]:
        """For each shard, the index after its last record."""
        return list(accumulate(self.shard_sizes))

    def _opened(self) -> _OpenFiles:
        """Return the open files of this process. A forked process starts with none."""
        if self._open_files.pid != os.getpid():
            self._open_files = _OpenFiles(os.getpid())
        return self._open_files

    def _records_file(self) -> RecordsFile:
        opened = self._opened()
        if opened.records is None:
            path = self.folder / RECORDS_NAME
            opened.records = RecordsFile(path, self.manifest.shards, self.remedy, self._fields)
        return opened.records

    def _rows(self, shard: int) -> Rows:
        rows = self._opened().rows
        if shard not in rows:
            rows[shard] = self._records_file().rows(shard)
            if len(rows) > self.keep_shards:
                rows.popitem(last=False)
        rows.move_to_end(shard)
        return rows[shard]

    def _open(self, shard: int) -> int:
        """Return a descriptor of one shard's tar."""
        tars = self._opened().tars
        if shard not in tars:
            tars[shard] = (
                self._store.open(self.manifest.shards[shard])
                if self._remote[shard]
                else os.open(self._path(shard), os.O_RDONLY)
            )
            if len(tars) > self.keep_shards:
                os.close(tars.popitem(last=False)[1])
        tars.move_to_end(shard)
        return tars[shard]

    def _forget(self, shard: int) -> None:
        """Close one shard of the store and remove it from the cache."""
        os.close(self._opened().tars.pop(shard))
        self._store.forget(self.manifest.shards[shard])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open_files": _OpenFiles(0)}


class _OpenFiles:
    """The files of a column that one process has open.

    records: the open `records.parquet`; None before its first use.
    tars: shard -> descriptor, the longest unused first.
    rows: shard -> its rows, the longest unused first.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.records: RecordsFile | None = None
        self.tars: OrderedDict[int, int] = OrderedDict()
        self.rows: OrderedDict[int, Rows] = OrderedDict()


def check_alignment(images: Column, column: Column) -> None:
    """Check that a column was made from these images and has the same keys in the same order, shard by shard.

    Raises ShardError with both digests, or with the first key that differs.
    """
    Expectation(made_from=images.manifest.digest).check(column.manifest, column.folder, column.remedy)
    if images.keys_sha256 and images.keys_sha256 == column.keys_sha256 and images.shard_sizes == column.shard_sizes:
        return
    for shard in range(min(len(images.shard_sizes), len(column.shard_sizes))):
        _check_keys(images, column, shard)
    if len(images.shard_sizes) != len(column.shard_sizes):
        raise ShardError(
            f"{column.folder} has {len(column.shard_sizes)} shards, {images.folder} has {len(images.shard_sizes)}; "
            f"run: {column.remedy}"
        )


def _check_keys(images: Column, column: Column, shard: int) -> None:
    image_keys, column_keys = images.keys_of(shard), column.keys_of(shard)
    if image_keys.equals(column_keys):
        return
    unpaired = sorted(set(image_keys.to_pylist()) ^ set(column_keys.to_pylist()))
    problem = f"{unpaired[0]} is in one of them only" if unpaired else "the order differs"
    raise ShardError(
        f"{column.folder} and {images.folder} hold other records in shard {shard}: {problem}; run: {column.remedy}"
    )
