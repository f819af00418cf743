"""One shard written as a WebDataset tar. The only file that imports webdataset."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets.shards.manifest import Shard
from datasets.shards.records import Field, ShardError, shard_name
from files.durable import durable_file


@dataclass(frozen=True, kw_only=True)
class NewRecord:
    """What becomes one record: members by field name ("png", "json", ...), and columns for its row."""

    key: str
    members: dict[str, bytes]
    about: dict[str, Any]


def even_sizes(num_records: int, records_per_shard: int) -> list[int]:
    """Sizes of the fewest shards of at most `records_per_shard`, no two of which differ by more than one record."""
    count = -(-num_records // records_per_shard)
    return [num_records // count + (index < num_records % count) for index in range(count)]


def write_shard(folder: Path, column: str, index: int, samples: Iterable[NewRecord]) -> tuple[Shard, list[Field]]:
    """Write one tar and return its entry for the manifest and its rows for `records.parquet`.

    The bytes depend on the samples alone: fixed owner, mode and times, members of a record sorted by field. Samples are
    taken one by one and not held. Raises ShardError when two have the same key.
    """
    webdataset = library()
    path = folder / shard_name(column, index)
    written: list[dict[str, Any]] = []
    keys: set[str] = set()
    with durable_file(path) as file:
        with webdataset.TarWriter(
            file, user="", group="", mode=0o644, mtime=0, encoder=False, format="PAX_FORMAT"
        ) as tar:
            for sample in samples:
                if sample.key in keys:
                    raise ShardError(f"{path}: two records have the key {sample.key}; rename one of their sources")
                keys.add(sample.key)
                tar.write({"__key__": sample.key, **sample.members})
                for name, content in sorted(sample.members.items()):
                    digest = hashlib.sha256(content).digest()
                    written.append({"key": sample.key, "field": name, "sha256": digest, "about": sample.about})
        file.flush()
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            fields = [
                Field(**row, shard=index, offset=member.offset_data, length=member.size)
                for row, member in zip(written, tar, strict=True)
            ]
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=path.name, records=len(keys), bytes=size, sha256=digest), fields


def library() -> ModuleType:
    """The webdataset library, imported where it is first used: that takes seconds, and readers do without it."""
    import webdataset

    return webdataset
