"""Read one shard from its first record to its last, without `records.parquet`."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from datasets.shards.manifest import Shard
from datasets.shards.records import ShardError
from datasets.shards.store import ShardStore
from files.objects import StoreConfig


def read_shard(
    folder: Path, shard: Shard, *, store: StoreConfig | None = None, remedy: str = "dvc repro"
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Compare a whole tar with its digest, then yield its records in order.

    folder: folder of the tar. A tar that is not there is read from the store.
    remedy: command that writes the shard again, for error messages.
    Yields key, and field name -> bytes.
    Raises ShardError if the tar is missing or has another digest, StoreError if the store does not give it.
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
            members = ((*_key_and_field(entry.name), tar.extractfile(entry).read()) for entry in tar)
            for key, group in groupby(members, key=lambda member: member[0]):
                yield key, {field: content for _, field, content in group}


def _key_and_field(name: str) -> tuple[str, str]:
    """Split a member's name by WebDataset's rule: the key ends at the first dot of the base name."""
    folders, slash, base = name.rpartition("/")
    key, _, field = base.partition(".")
    return folders + slash + key, field
