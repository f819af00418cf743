"""One shard as one task: write the tar, then its done note, and reuse both after a kill."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.shards.manifest import Rejected, Shard
from datasets.shards.records import Member, records_table, shard_name, write_tables
from datasets.shards.store import ShardStore, put
from datasets.writing.digests import digest_of
from datasets.writing.tars import NewRecord, write_shard
from files.durable import file_digest, write_durably
from files.errors import UserError
from files.objects import StoreConfig

_METADATA = b"done"
_DIGEST_BYTES = hashlib.sha256().digest_size


class WritingError(UserError):
    """A split cannot be completed from its shards; the message says why and what to do."""


class ShardContent(ABC):
    """The records of one shard before they are made. Picklable: it is sent to the worker that writes the shard."""

    @property
    @abstractmethod
    def num_sources(self) -> int:
        """Number of records if none is rejected."""

    @property
    @abstractmethod
    def inputs(self) -> Any:
        """Everything but code that decides the shard's bytes: any value that `digest_of` accepts."""

    @abstractmethod
    def records(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        """Make the records one by one, in order, and append each source that cannot become one to `rejected`."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """The content of a done note.

    identity: digest of everything that decides the shard's bytes, in hex.
    shard: the manifest's entry; None if no source was usable.
    rejected: sources that did not become records.
    metadata_dropped: number of records whose source has metadata that could not be read.
    """

    identity: str
    shard: Shard | None
    rejected: tuple[Rejected, ...]
    metadata_dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to write.

    split, column: the shard's split and column.
    index: number in the shard's file name.
    folder: absolute path of the folder for the shard.
    notes: absolute path of the folder for the split's done notes.
    code: digest of the code that makes the shard.
    store: store to which the finished shard is moved; without an address it stays in `folder`.
    """

    split: str
    column: str
    index: int
    content: ShardContent
    folder: Path
    notes: Path
    code: str
    store: StoreConfig

    @property
    def shard_path(self) -> Path:
        return self.folder / shard_name(self.column, self.index)

    @property
    def done_note(self) -> Path:
        return self.notes / f"{self.shard_path.stem}.done"

    @property
    def identity(self) -> str:
        return digest_of([self.column, self.content.inputs, self.code])


def run_shard_task(task: ShardTask) -> tuple[WrittenShard, bool]:
    """Write one shard and then its done note, unless an earlier run completed both.

    Returns the content of the done note, and whether an earlier run wrote it.
    """
    identity = task.identity
    earlier = read_done_note(task.done_note)
    if earlier and earlier.identity == identity and _is_complete(task, earlier.shard):
        _move_to_store(task, earlier.shard)
        return earlier, True
    rejected: list[Rejected] = []
    shard, members, metadata_dropped = _write_tar(task, rejected)
    written = WrittenShard(identity=identity, shard=shard, rejected=tuple(rejected), metadata_dropped=metadata_dropped)
    _write_done_note(task.done_note, written, records_table(members))
    _move_to_store(task, shard)
    return written, False


def read_done_note(path: Path) -> WrittenShard | None:
    """Read a done note; returns None if it is missing or damaged, so that its shard is written again."""
    note = _read_note_and_rows(path)
    return note[0] if note else None


def write_split_records(tasks: Sequence[ShardTask], written: Sequence[WrittenShard]) -> tuple[tuple[Shard, ...], str]:
    """Write `records.parquet` of one split, shard by shard, from the done notes.

    tasks: all tasks of the split, in the order of shards.
    written: done note of each task, as `run_shard_task` returned it.
    Returns the shards that have records, and the SHA-256 of the table.
    Raises WritingError if a done note differs from `written`, or if no shard has a record.
    """
    used = [(task, note) for task, note in zip(tasks, written, strict=True) if note.shard]
    if not used:
        first = next((f"; one is {reject.name}: {reject.reason}" for note in written for reject in note.rejected), "")
        raise WritingError(f"no record of split {tasks[0].split} is usable, so there is nothing to write{first}")
    # A table column without any value in a shard has no type in its done note. Another shard gives the type.
    schema = pa.unify_schemas([_read_rows(task, note).schema for task, note in used])
    tables = (_read_rows(task, note) for task, note in used)
    return tuple(note.shard for _, note in used), write_tables(tasks[0].folder, schema, tables)


def _write_tar(task: ShardTask, rejected: list[Rejected]) -> tuple[Shard | None, list[Member], int]:
    """Write the tar of a task. Returns its shard and members, and the number of records with dropped metadata."""
    metadata_dropped = 0

    def records() -> Iterator[NewRecord]:
        nonlocal metadata_dropped
        for record in task.content.records(rejected):
            metadata_dropped += record.is_metadata_dropped
            yield record

    waiting = records()
    first = next(waiting, None)
    if first is None:
        task.shard_path.unlink(missing_ok=True)  # an earlier run with other inputs may have left it
        return None, [], 0
    shard, members = write_shard(task.folder, task.column, task.index, itertools.chain([first], waiting))
    return shard, members, metadata_dropped


def _write_done_note(path: Path, note: WrittenShard, rows: pa.Table) -> None:
    """Write the SHA-256 of the rest, 32 bytes, then the rows as Parquet with the note in its metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({_METADATA: json.dumps(asdict(note))}), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_durably(path, hashlib.sha256(content).digest() + content)


def _read_note_and_rows(path: Path) -> tuple[WrittenShard, pa.Table] | None:
    content = path.read_bytes() if path.is_file() else b""
    digest, table = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(table).digest() != digest:
        return None
    rows = pq.read_table(pa.BufferReader(table), use_threads=False)  # too small to be worth threads
    note = json.loads(rows.schema.metadata[_METADATA])
    written = WrittenShard(
        identity=note["identity"],
        shard=Shard(**note["shard"]) if note["shard"] else None,
        rejected=tuple(Rejected(**reject) for reject in note["rejected"]),
        metadata_dropped=note.get("metadata_dropped", 0),  # missing in notes of earlier versions
    )
    return written, rows.replace_schema_metadata(None)


def _read_rows(task: ShardTask, written: WrittenShard) -> pa.Table:
    note = _read_note_and_rows(task.done_note)
    if note is None or note[0] != written:
        raise WritingError(f"{task.done_note} was changed by another process; stop that process and run this again")
    return note[1]


def _is_complete(task: ShardTask, shard: Shard | None) -> bool:
    """Return whether the shard's bytes are in the folder, or in the store, as the done note says."""
    if shard is None:
        return True
    path = task.folder / shard.name
    if not path.is_file():
        return task.store.url is not None and ShardStore(task.store).has(shard)
    return path.stat().st_size == shard.bytes and file_digest(path) == shard.sha256


def _move_to_store(task: ShardTask, shard: Shard | None) -> None:
    if shard and (task.folder / shard.name).is_file():
        put(task.store, task.folder, shard)
