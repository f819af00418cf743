"""Rows of `records.parquet`, read and checked shard by shard.

The file has one row per member and one row group per shard. Within a shard, rows of the same record are adjacent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.shards.manifest import Shard
from datasets.shards.records import (
    CORE_COLUMNS,
    KEYS_DIGEST,
    ShardError,
    as_shard_errors,
    check_columns,
    shard_number,
)


@dataclass(frozen=True)
class FieldPlaces:
    """Places of one field's members in a shard, indexed by record.

    offsets, lengths: in bytes.
    digests: SHA-256, binary.
    """

    offsets: list[int]
    lengths: list[int]
    digests: pa.Array


@dataclass(frozen=True)
class Rows:
    """Checked rows of one shard.

    keys: key of each record.
    fields: field name -> places of its members.
    """

    keys: pa.Array
    fields: Mapping[str, FieldPlaces]

    def place(self, record: int, field: str) -> tuple[int, int, bytes]:
        """Return offset, length and SHA-256 of one member. record: counted from the shard's first."""
        places = self.fields[field]
        return places.offsets[record], places.lengths[record], places.digests[record].as_py()


class RecordsFile:
    """An open `records.parquet`. It reads a row group when that shard is asked for.

    path: the file.
    shards: entries of the manifest; row group n has the rows of shards[n].
    remedy: command that writes the file again, for error messages.
    fields: names of the members that every record has, sorted; read from the first row group if not given.
    Raises ShardError if the file is not a table of records or has another number of row groups.
    """

    def __init__(self, path: Path, shards: Sequence[Shard], remedy: str, fields: tuple[str, ...] | None = None) -> None:
        self.path = path
        self.shards = shards
        self.remedy = remedy
        with as_shard_errors(path, remedy):
            # Not mapped into memory: if the file were cut short, the next access would kill this process by SIGBUS.
            self._file = pq.ParquetFile(path)
            check_columns(self._file.schema_arrow, path, remedy)
        if self._file.num_row_groups != len(shards):
            raise ShardError(
                f"{path} has {self._file.num_row_groups} row groups for {len(shards)} shards; run: {remedy}"
            )
        self.fields = fields or tuple(sorted(set(self._read(0, ("field",))["field"].to_pylist())))

    @property
    def keys_sha256(self) -> str | None:
        """Digest of all keys in their order, see `write_tables`; None if the writer left none."""
        return (self._file.metadata.metadata or {}).get(KEYS_DIGEST.encode(), b"").decode() or None

    def check(self) -> None:
        """Check by the file's statistics that every shard has one row per record and field; reads rows only on failure.

        Raises ShardError that names the first record or shard that is wrong.
        """
        place = self._file.schema_arrow.get_field_index("field")
        for number, shard in enumerate(self.shards):
            group = self._file.metadata.row_group(number)
            names = group.column(place).statistics
            is_complete = group.num_rows == shard.records * len(self.fields) and names is not None
            if not is_complete or (names.min, names.max) != (self.fields[0], self.fields[-1]):
                self.rows(number)  # names the first record and member that is wrong
                raise ShardError(f"{self.path}: shard {number} has members that others lack; run: {self.remedy}")

    def keys(self, number: int) -> pa.Array:
        """Read the keys of one shard's records. Raises ShardError that names the first record that lacks a member."""
        return self._keys(self._by_field(number, self._read(number, ("key", "field"))))

    def rows(self, number: int) -> Rows:
        """Read and check the rows of one shard.

        Raises ShardError if a member is outside its shard, or if a record lacks a member.
        """
        table = self._read(number, CORE_COLUMNS)
        self._check_places(number, table)
        by_field = self._by_field(number, table)
        places = {
            field: FieldPlaces(rows["offset"].to_pylist(), rows["length"].to_pylist(), rows["sha256"].combine_chunks())
            for field, rows in by_field.items()
        }
        return Rows(self._keys(by_field), places)

    def _read(self, number: int, columns: Sequence[str]) -> pa.Table:
        with as_shard_errors(self.path, self.remedy):
            return self._file.read_row_group(number, columns=list(columns), use_threads=False).combine_chunks()

    def _keys(self, by_field: Mapping[str, pa.Table]) -> pa.Array:
        return by_field[self.fields[0]]["key"].combine_chunks()

    def _check_places(self, number: int, table: pa.Table) -> None:
        """Check that every member is inside its shard: a false length could ask for all the memory."""
        shard = self.shards[number]
        with as_shard_errors(self.path, self.remedy):
            # Not to_numpy, which imports pandas: a second, before a process has its first record.
            columns = (table[name].combine_chunks() for name in ("shard", "offset", "length"))
            numbers, offsets, lengths = (np.from_dlpack(column) for column in columns)
        last_offsets = shard.bytes - np.minimum(lengths, shard.bytes)  # no sum, which could overflow
        is_inside = (offsets >= 0) & (lengths >= 0) & (lengths <= shard.bytes) & (offsets <= last_offsets)
        if not is_inside.all() or not (numbers == shard_number(shard.name)).all():
            raise ShardError(f"{self.path} places members outside their shards; run: {self.remedy}")

    def _by_field(self, number: int, table: pa.Table) -> dict[str, pa.Table]:
        """Split a shard's rows by field, and check that all fields have the same keys in the same order."""
        if len(self.fields) == 1 and pc.unique(table["field"]).to_pylist() == list(self.fields):
            by_field = {self.fields[0]: table}  # no comparison with a text, which imports pandas as well
        else:
            by_field = {field: table.filter(pc.equal(table["field"], field)) for field in self.fields}
        keys = by_field[self.fields[0]]["key"]
        for field, rows in by_field.items():
            if len(rows) != self.shards[number].records or not rows["key"].equals(keys):
                raise ShardError(self._mismatch(number, table, field))
        return by_field

    def _mismatch(self, number: int, table: pa.Table, field: str) -> str:
        """Return the message about the first record of a shard whose members differ from `fields`."""
        shard = self.shards[number]
        members: dict[str, list[str]] = {}
        for key, name in zip(table["key"].to_pylist(), table["field"].to_pylist(), strict=True):
            members.setdefault(key, []).append(name)
        wrong = next((key for key, names in members.items() if sorted(names) != list(self.fields)), None)
        if wrong is None:
            problem = f"there are {len(members)} records with {field}, the manifest says {shard.records}"
        else:
            names, others = ", ".join(sorted(members[wrong])), ", ".join(self.fields)
            problem = f"record {wrong} has members {names} where others have {others}"
        return f"{self.path}, shard {shard.name}: {problem}; run: {self.remedy}"
