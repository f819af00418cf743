"""Write one shard as a WebDataset tar. The only file that imports webdataset."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from datasets.shards.manifest import Shard
from datasets.shards.records import Member, ShardError, shard_name
from files.durable import durable_file


@dataclass(frozen=True, kw_only=True)
class NewRecord:
    """One record to write.

    key: the record's key, unique in its split.
    members: field name, such as "png" or "json" -> bytes.
    about: further table columns of the record's rows in `records.parquet`.
    is_metadata_dropped: whether metadata of the source could not be read.
    """

    key: str
    members: dict[str, bytes]
    about: dict[str, Any]
    is_metadata_dropped: bool = False


def even_sizes(num_records: int, records_per_shard: int) -> list[int]:
    """Return the sizes of the fewest shards of at most `records_per_shard`. No two differ by more than one record."""
    count = -(-num_records // records_per_shard)
    smaller, num_larger = divmod(num_records, max(1, count))
    return [smaller + 1] * num_larger + [smaller] * (count - num_larger)


def write_shard(folder: Path, column: str, index: int, records: Iterable[NewRecord]) -> tuple[Shard, list[Member]]:
    """Write one tar. Equal records give equal bytes: owner, mode and times are fixed, members are sorted by field.

    index: number in the shard's file name.
    records: the records in order; each is released once it is written.
    Returns the shard's entry for the manifest, and its members for `records.parquet`.
    Raises ShardError when two records have the same key.
    """
    path = folder / shard_name(column, index)
    with durable_file(path) as file:
        num_records, written = _write_records(file, path, records)
        file.flush()
        members = _locate_members(file, index, written)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=path.name, records=num_records, bytes=size, sha256=digest), members


def _write_records(file: BinaryIO, path: Path, records: Iterable[NewRecord]) -> tuple[int, list[dict[str, Any]]]:
    """Write the records and return their number, and key, field, digest and `about` of each member."""
    written: list[dict[str, Any]] = []
    keys: set[str] = set()
    with library().TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False, format="PAX_FORMAT") as tar:
        for record in records:
            if record.key in keys:
                raise ShardError(f"{path}: two records have the key {record.key}; rename one of their sources")
            keys.add(record.key)
            tar.write({"__key__": record.key, **record.members})
            for field, content in sorted(record.members.items()):
                digest = hashlib.sha256(content).digest()
                written.append({"key": record.key, "field": field, "sha256": digest, "about": record.about})
    return len(keys), written


def _locate_members(file: BinaryIO, index: int, written: list[dict[str, Any]]) -> list[Member]:
    """Add the place of each member's bytes, read from the tar that was just written."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        return [
            Member(**member, shard=index, offset=entry.offset_data, length=entry.size)
            for member, entry in zip(written, tar, strict=True)
        ]


def library() -> ModuleType:
    """Import webdataset where it is first used: the import takes seconds, and readers need none of it."""
    import webdataset

    return webdataset
