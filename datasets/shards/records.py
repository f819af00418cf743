"""The table of a column's members, `records.parquet`: where each member's bytes are in which shard."""

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
    """A shard or its table differs from its manifest; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of one record: one row of `records.parquet`.

    field: name of the member, such as "png".
    shard: number in the shard's file name.
    offset, length: place of the member's bytes in the tar, in bytes.
    sha256: digest of those bytes.
    about: further table columns about the record, such as its source's name and digest, width, height and label.
    """

    key: str
    field: str
    shard: int
    offset: int
    length: int
    sha256: bytes
    about: dict[str, Any]


# Table columns that every `records.parquet` has; the others are those of `about`.
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
    """Return the file name of a column's shard, such as image-000012.tar."""
    return f"{column}-{index:06d}.tar"


def shard_number(name: str) -> int:
    """Return the 12 of image-000012.tar. Numbers have gaps: a shard without any usable record is not written."""
    return int(name.removesuffix(".tar").rpartition("-")[2])


def records_table(members: Sequence[Member]) -> pa.Table:
    """Return the rows of `records.parquet`, one per member."""
    rows = []
    for member in members:
        row = asdict(member)
        about = row.pop("about")
        rows.append(row | about)
    return pa.Table.from_pylist(rows)


def write_records(folder: Path, members: Sequence[Member]) -> str:
    """Write `records.parquet` and return its SHA-256. members: all members, in shard order."""
    return write_table(folder, records_table(members))


def write_table(folder: Path, table: pa.Table) -> str:
    """Write `records.parquet` from one table of all rows, in shard order, and return its SHA-256."""
    ends = [*np.flatnonzero(np.diff(table["shard"].to_numpy())) + 1, len(table)]
    shards = (table.slice(start, end - start) for start, end in itertools.pairwise([0, *ends]))
    return write_tables(folder, table.schema, shards)


def write_tables(folder: Path, schema: pa.Schema, shards: Iterable[pa.Table]) -> str:
    """Write `records.parquet`, a row group per shard, because readers go shard by shard.

    shards: the rows of each shard, made one by one.
    Returns the file's SHA-256. The file's metadata have `keys_sha256`, the digest of all keys in order, each counted
    once: columns of the same records have equal values.
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
    """Read `records.parquet`: all of it, one shard's rows, or some table columns.

    shard: number in the shard's file name; None reads all shards.
    columns: names of table columns; None reads all.
    Raises ShardError if the file is not a table of records. This does not compare its digest: `read_manifest` does.
    """
    path = folder / RECORDS_NAME
    with as_shard_errors(path, remedy):
        check_columns(pq.read_schema(path), path, remedy)
        filters = None if shard is None else [("shard", "=", shard)]
        return pq.read_table(path, columns=None if columns is None else list(columns), filters=filters)


def check_columns(schema: pa.Schema, path: Path, remedy: str) -> None:
    """Raise ShardError unless a table has every table column of `CORE_COLUMNS`, of the right type."""
    for name, has_type in _CORE.items():
        if name not in schema.names or not has_type(schema.field(name).type):
            raise ShardError(f"{path} has no usable column {name}; run: {remedy}")


@contextmanager
def as_shard_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn every error of pyarrow about a damaged table into a ShardError."""
    try:
        yield
    except ShardError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise ShardError(f"{path} is not a table of records ({' '.join(str(error).split())}); run: {remedy}") from error


def read_member(file: BinaryIO, path: Path, row: Mapping[str, Any], remedy: str = "dvc repro") -> bytes:
    """Read one member of an open shard and compare it with its digest.

    file, path: the open shard and its path, for messages.
    row: the member's row of `records.parquet`.
    Raises ShardError that names the shard and the record if the digests differ.
    """
    size = os.fstat(file.fileno()).st_size
    # A false length could ask for all the memory, so nothing outside the file is read.
    is_inside = 0 <= row["offset"] <= row["offset"] + row["length"] <= size
    content = os.pread(file.fileno(), row["length"], row["offset"]) if is_inside else b""
    if not is_inside or hashlib.sha256(content).digest() != row["sha256"]:
        raise ShardError(
            f"{path}: {row['key']}.{row['field']} differs from its digest; restore the shard or run: {remedy}"
        )
    return content
