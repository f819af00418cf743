"""Shards: plain WebDataset tars, written byte for byte the same, and the table of what lies where in them."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.shards.manifest import RECORDS_NAME
from files.durable import durable_file, file_digest
from files.errors import UserError

KEYS_DIGEST = "keys_sha256"


class ShardError(UserError):
    """A shard's bytes are not those its manifest lists."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One member of one record, as it lies in a shard: one row of `records.parquet`.

    offset, length: of the member's bytes in the tar. sha256: of those bytes. `about`: what else is known of the
    record, such as its source's name and digest, width, height and label.
    """

    key: str
    field: str
    shard: int
    offset: int
    length: int
    sha256: bytes
    about: dict[str, Any]


# What every row of `records.parquet` has, beside what else is known of a record.
_CORE = {
    "key": pa.types.is_string,
    "field": pa.types.is_string,
    "shard": pa.types.is_integer,
    "offset": pa.types.is_integer,
    "length": pa.types.is_integer,
    "sha256": pa.types.is_binary,
}
CORE_COLUMNS = tuple(_CORE)


def shard_name(column: str, index: int) -> str:
    """File name of a column's shard, such as `image-000012.tar`."""
    return f"{column}-{index:06d}.tar"


def shard_number(name: str) -> int:
    """The 12 of `image-000012.tar`. Numbers have gaps where a shard was left without any usable record."""
    return int(name.removesuffix(".tar").rpartition("-")[2])


def records_table(fields: Sequence[Field]) -> pa.Table:
    """The rows of `records.parquet`: one per member."""
    rows = [{**asdict(field), **field.about} for field in fields]
    for row in rows:
        del row["about"]
    return pa.Table.from_pylist(rows)


def write_records(folder: Path, fields: Sequence[Field]) -> str:
    """Write `records.parquet`, a row per member in shard order, and return its SHA-256."""
    return write_table(folder, records_table(fields))


def write_table(folder: Path, table: pa.Table) -> str:
    """Write `records.parquet` as a table, a row per member in shard order, and return its SHA-256."""
    ends = [*np.flatnonzero(np.diff(table["shard"].to_numpy())) + 1, len(table)]
    shards = (table.slice(start, end - start) for start, end in itertools.pairwise([0, *ends]))
    return write_tables(folder, table.schema, shards)


def write_tables(folder: Path, schema: pa.Schema, shards: Iterable[pa.Table]) -> str:
    """Write `records.parquet` of shards' rows that come one by one, a row group each, since readers go shard by shard.

    Returns its SHA-256. Its metadata hold, as `keys_sha256`, the digest of all keys in their order, each once though it
    may have several members: equal for columns of the same records.
    """
    path, keys = folder / RECORDS_NAME, hashlib.sha256()
    with durable_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in shards:
            for key, _ in itertools.groupby(table["key"].to_pylist()):
                keys.update(key.encode() + b"\n")
            writer.write_table(table.cast(schema).combine_chunks(), row_group_size=max(1, len(table)))
        writer.add_key_value_metadata({KEYS_DIGEST: keys.hexdigest()})
    return file_digest(path)


def read_table(
    folder: Path, *, shard: int | None = None, columns: Sequence[str] | None = None, remedy: str = "dvc repro"
) -> pa.Table:
    """`records.parquet`, or of one shard's rows alone, or some of its columns.

    Raises ShardError if it is no such table. Its bytes were compared with the manifest's digest by whoever read that.
    """
    path = folder / RECORDS_NAME
    with as_shard_errors(path, remedy):
        check_columns(pq.read_schema(path), path, remedy)
        filters = None if shard is None else [("shard", "=", shard)]
        return pq.read_table(path, columns=None if columns is None else list(columns), filters=filters)


def check_columns(schema: pa.Schema, path: Path, remedy: str) -> None:
    """Raise ShardError unless a table has what every table of records has."""
    for name, fits in _CORE.items():
        if name not in schema.names or not fits(schema.field(name).type):
            raise ShardError(f"{path} has no usable column {name}; run: {remedy}")


@contextmanager
def as_shard_errors(path: Path, remedy: str) -> Iterator[None]:
    """Whatever pyarrow raises for a table that is none becomes a ShardError."""
    try:
        yield
    except ShardError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise ShardError(f"{path} is not a table of records ({' '.join(str(error).split())}); run: {remedy}") from error


def read_member(file: BinaryIO, path: Path, row: Mapping[str, Any], remedy: str = "dvc repro") -> bytes:
    """The bytes of one member, of its row of `records.parquet` and its open shard, compared with their digest.

    Raises ShardError that names the shard and the record when they differ.
    """
    size = os.fstat(file.fileno()).st_size
    inside = 0 <= row["offset"] <= row["offset"] + row["length"] <= size  # else any length could be asked of memory
    content = os.pread(file.fileno(), row["length"], row["offset"]) if inside else b""
    if not inside or hashlib.sha256(content).digest() != row["sha256"]:
        raise ShardError(
            f"{path}: {row['key']}.{row['field']} is not what its digest says; restore the shard or run: {remedy}"
        )
    return content
