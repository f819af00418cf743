"""A column while it is written: each finished shard leaves a receipt with its rows, and a rerun goes on from there."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.shards.manifest import Rejected, Shard
from datasets.shards.records import records_table, shard_name, write_tables
from datasets.shards.store import ShardStore, put
from datasets.writing.tars import NewRecord, write_shard
from files.durable import file_digest, write_durably
from files.errors import UserError
from files.objects import StoreConfig

_METADATA = b"part"


class PartError(UserError):
    """The parts of a column do not make a whole; the message says why and what to do."""


class ShardContent(ABC):
    """What fills one shard; picklable, since it travels to where the shard is written."""

    @property
    @abstractmethod
    def num_sources(self) -> int:
        """How many records the shard has if none is rejected."""

    @property
    @abstractmethod
    def inputs(self) -> Any:
        """All that the shard's bytes depend on beside code: dataclasses, mappings, sequences, texts and numbers."""

    @abstractmethod
    def samples(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        """The records in order, made one by one; what cannot become one is added to `rejected`."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """One shard of a column being written, as its receipt has it.

    identity: digest of all that its bytes depend on. shard: None if no source was usable. rejected: sources that did
    not become records.
    """

    identity: str
    shard: Shard | None
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """One shard to write. folder: of its split; receipts: where receipts of that split lie; index: the number in its
    name; code: digest of the code that writes it; store: where it goes once it is written, if not into the folder."""

    split: str
    folder: Path
    receipts: Path
    column: str
    index: int
    content: ShardContent
    code: str
    store: StoreConfig

    @property
    def shard_path(self) -> Path:
        return self.folder / shard_name(self.column, self.index)

    @property
    def receipt_path(self) -> Path:
        return self.receipts / f"{self.shard_path.stem}.receipt"


def write_part(task: PartTask) -> tuple[WrittenShard, bool]:
    """Write one shard and then its receipt, unless both are there and whole.

    Returns what the receipt says, and whether it was there already.
    """
    identity = digest_of([task.column, task.content.inputs, task.code])
    found = read_part(task.receipt_path)
    if found and found.identity == identity and _is_whole(task, found.shard):
        _store(task, found.shard)
        return found, True
    rejected: list[Rejected] = []
    samples = task.content.samples(rejected)
    first = next(samples, None)
    if first is None:
        shard, fields = None, []
        task.shard_path.unlink(missing_ok=True)  # of a run that was planned otherwise
    else:
        shard, fields = write_shard(task.folder, task.column, task.index, itertools.chain([first], samples))
    part = WrittenShard(identity=identity, shard=shard, rejected=tuple(rejected))
    _write_receipt(task.receipt_path, part, records_table(fields))
    _store(task, shard)
    return part, False


def read_part(receipt: Path) -> WrittenShard | None:
    """What a receipt says; None if there is none that is whole: then its shard is written anew."""
    found = _read_receipt(receipt)
    return found[0] if found else None


def merge_parts(tasks: Sequence[PartTask], parts: Sequence[WrittenShard]) -> tuple[tuple[Shard, ...], str]:
    """Write `records.parquet` of one split, a shard at a time, from the receipts that `write_part` left.

    Returns the shards that have records, and the table's SHA-256.
    Raises PartError when a receipt is no longer what `write_part` returned, or no shard has a record.
    """
    used = [(task, part) for task, part in zip(tasks, parts, strict=True) if part.shard]
    if not used:
        raise PartError(f"no record of split {tasks[0].split} is usable, so there is nothing to write")
    # A field that a whole shard lacks has no type in its receipt: the others know it.
    schema = pa.unify_schemas([_rows(task, part).schema for task, part in used])
    tables = (_rows(task, part) for task, part in used)
    return tuple(part.shard for _, part in used), write_tables(tasks[0].folder, schema, tables)


def digest_of(value: Any) -> str:
    """SHA-256 of plain data, dataclasses and classes; what has a method `changed_ns`, as locators do, counts with it.

    Raises TypeError for what has no content that could be told, such as a function.
    """
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, type):
        return {"class": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, Mapping):
        return {"mapping": [[_plain(key), _plain(value[key])] for key in sorted(value)]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        changed = {"changed_ns": value.changed_ns()} if hasattr(value, "changed_ns") else {}
        return _plain(type(value)) | fields | changed
    raise TypeError(f"{type(value).__name__} has no digest: it must be plain data or a dataclass of it")


def _write_receipt(path: Path, part: WrittenShard, rows: pa.Table) -> None:
    """SHA-256 of the rest in 32 bytes, then the rows as Parquet with the part in the metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({_METADATA: json.dumps(asdict(part))}), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_durably(path, hashlib.sha256(content).digest() + content)


def _read_receipt(path: Path) -> tuple[WrittenShard, pa.Table] | None:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    rows = pq.read_table(pa.BufferReader(content[32:]), use_threads=False)  # too small to share
    said = json.loads(rows.schema.metadata[_METADATA])
    shard = Shard(**said["shard"]) if said["shard"] else None
    rejected = tuple(Rejected(**each) for each in said["rejected"])
    return WrittenShard(identity=said["identity"], shard=shard, rejected=rejected), rows.replace_schema_metadata(None)


def _rows(task: PartTask, part: WrittenShard) -> pa.Table:
    found = _read_receipt(task.receipt_path)
    if found is None or found[0] != part:
        raise PartError(f"{task.receipt_path} was changed by another process; stop that one and run this again")
    return found[1]


def _is_whole(task: PartTask, shard: Shard | None) -> bool:
    if shard is None:
        return True
    path = task.folder / shard.name
    if not path.is_file():
        return task.store.url is not None and ShardStore(task.store).has(shard)
    return path.stat().st_size == shard.bytes and file_digest(path) == shard.sha256


def _store(task: PartTask, shard: Shard | None) -> None:
    if shard and (task.folder / shard.name).is_file():
        put(task.store, task.folder, shard)
