"""Remove records from finished shards. Only the shards that hold one are rewritten.

1. `rewrite_shard` and `stage_folder` write the new files into a staging folder.
2. `commit_removal` writes a note that lists every change.
3. `finish_removal` moves the new files into place, folder by folder, each manifest last, and removes the shards that
   they replace. New shards of a column in a store are uploaded; they have other names there.

A kill before step 2 leaves the old state. A kill after it leaves the note, from which `finish_removal` continues.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.shards.column import Column
from datasets.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    Rejected,
    Shard,
    in_order,
    read_manifest,
    write_manifest,
)
from datasets.shards.records import (
    CORE_COLUMNS,
    Member,
    ShardError,
    read_member,
    read_table,
    records_table,
    shard_number,
    write_table,
)
from datasets.shards.store import ShardStore, put
from datasets.writing.tars import NewRecord, write_shard
from files.durable import sync_folder, write_durably
from files.objects import StoreConfig

_NOTE = "note.json"


@dataclass(frozen=True, kw_only=True)
class RemovalTask:
    """One shard to rewrite without some keys.

    folder: folder of the column and split.
    staged: folder for the new shard.
    column: name of the column.
    shard: the shard as its manifest lists it; in `folder`, or else in the store.
    keys: the keys to leave out.
    """

    folder: Path
    staged: Path
    column: str
    shard: Shard
    keys: frozenset[str]
    store: StoreConfig

    @property
    def number(self) -> int:
        return shard_number(self.shard.name)


def removal_tasks(folder: Path, staging: Path, keys: Collection[str], store: StoreConfig) -> list[RemovalTask]:
    """Return one task per shard of a folder that holds one of the keys.

    staging: the staging folder of the removal.
    """
    manifest = read_manifest(folder)
    table = read_table(folder, columns=("key", "shard"))
    numbers = set(table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))["shard"].to_pylist())
    return [
        RemovalTask(
            folder=folder.resolve(),
            staged=_staged(staging, folder).resolve(),
            column=manifest.column,
            shard=shard,
            keys=frozenset(keys),
            store=store,
        )
        for shard in manifest.shards
        if shard_number(shard.name) in numbers
    ]


def rewrite_shard(task: RemovalTask) -> tuple[RemovalTask, Shard | None, list[Member]]:
    """Write one shard without the task's keys. Every member that stays is compared with its digest.

    Returns the task, the new shard, or None if no record stays, and its rows of records.parquet.
    Raises ShardError for the first member that differs, StoreError if the store does not return the shard.
    """
    records = list(_remaining_records(task))
    if not records:
        return task, None, []
    return task, *write_shard(task.staged, task.column, task.number, records)


def _staged(staging: Path, folder: Path) -> Path:
    return staging / folder


def _remaining_records(task: RemovalTask) -> Iterator[NewRecord]:
    path = task.folder / task.shard.name
    rows = read_table(task.folder, shard=task.number).to_pylist()
    in_store = task.store.url and not path.exists()
    with os.fdopen(ShardStore(task.store).open(task.shard), "rb") if in_store else path.open("rb") as file:
        for key, members in groupby(rows, key=lambda row: row["key"]):
            if key in task.keys:
                continue
            contents, about = {}, {}
            for row in members:
                contents[row["field"]] = read_member(file, path, row)
                about = {name: value for name, value in row.items() if name not in CORE_COLUMNS}
            yield NewRecord(key=key, members=contents, about=about)


def stage_folder(
    folder: Path,
    staging: Path,
    rewritten: Sequence[tuple[RemovalTask, Shard | None, list[Member]]],
    rejected: Iterable[Rejected] = (),
    made_from: str = "",
) -> Manifest:
    """Write a folder's new records and manifest beside its rewritten shards.

    rewritten: results of `rewrite_shard` for this folder.
    rejected: sources that the manifest lists in addition.
    made_from: digest of the images' new manifest, for a column that is made from images.
    Returns the new manifest. Raises ShardError if the folder would be empty.
    """
    old = read_manifest(folder)
    new_shards = {task.number: shard for task, shard, _ in rewritten}
    shards = []
    for shard in old.shards:
        number = shard_number(shard.name)
        if number not in new_shards:
            shards.append(shard)
        elif new_shards[number] is not None:
            shards.append(new_shards[number])
    if not shards:
        raise ShardError(f"no record of {folder} would be left; a split cannot be empty")
    staged = _staged(staging, folder)
    table = _replace_rows(read_table(folder), {task.number: fields for task, _, fields in rewritten})
    digest = write_table(staged, table)
    manifest = replace(
        old,
        shards=tuple(shards),
        records_sha256=digest,
        made_from=made_from,
        rejected=in_order([*old.rejected, *rejected]),
    )
    write_manifest(staged, manifest)
    return manifest


def _replace_rows(table: pa.Table, rewritten: dict[int, list[Member]]) -> pa.Table:
    """Replace the rows of rewritten shards.

    table: rows of records.parquet, in the order of shards.
    rewritten: shard number -> its new rows; none if no record of the shard stays.
    Returns a table equal in every byte, once written, to that of a fresh ingest without the removed records.
    """
    numbers = table["shard"].to_numpy()
    pieces, start = [], 0
    for number, fields in sorted(rewritten.items()):
        first, end = (int(row) for row in numbers.searchsorted([number, number + 1]))
        pieces.append(table.slice(start, first - start))
        if fields:
            pieces.append(records_table(fields).select(table.schema.names).cast(table.schema))
        start = end
    merged = pa.concat_tables([*pieces, table.slice(start)]).combine_chunks()
    for index, name in enumerate(merged.column_names):
        if merged[name].null_count == len(merged):
            # A fresh ingest infers types from the values, and Arrow infers the null type if there are none. So a table
            # column whose last value was removed, such as the only label, gets this type, too.
            merged = merged.set_column(index, name, pa.nulls(len(merged)))
    return merged


def commit_removal(staging: Path, folders: Sequence[Path], about: dict[str, Any]) -> None:
    """Commit to the staged files: from now on `finish_removal` moves them into place, even after a kill.

    about: plain data for the caller, which `pending_removal` returns.
    """
    note = {"about": about, "folders": [_change(folder, _staged(staging, folder)) for folder in folders]}
    write_durably(staging / _NOTE, json.dumps(note, indent=2).encode())


def _change(folder: Path, staged: Path) -> dict[str, Any]:
    before, after = read_manifest(folder), read_manifest(staged)
    return {
        "folder": str(folder),
        "before": before.digest,
        "after": after.digest,
        "old": [asdict(shard) for shard in before.shards if shard not in after.shards],
        "new": [asdict(shard) for shard in after.shards if shard not in before.shards],
    }


def pending_removal(staging: Path) -> dict[str, Any] | None:
    """Return the `about` of a removal that is committed and not finished; None if there is none.

    Staged files without a commit are deleted, and so is a removal from shards that were rebuilt after its commit.
    """
    try:
        note = json.loads((staging / _NOTE).read_bytes())
    except FileNotFoundError:
        note = None
    if note is None or not all(_still_fits(change) for change in note["folders"]):
        (staging / _NOTE).unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        return None
    return note["about"]


def _still_fits(change: dict[str, Any]) -> bool:
    """Return whether a folder is in its old state, in its new state, or between them, without a manifest."""
    folder = Path(change["folder"])
    if not (folder / MANIFEST_NAME).is_file():
        return folder.is_dir()
    try:
        return read_manifest(folder).digest in (change["before"], change["after"])
    except ManifestError:
        return False


def finish_removal(staging: Path, store: StoreConfig) -> None:
    """Move the committed files into place and remove the shards that they replace.

    It may be called again after a kill or an error.
    Raises ShardError if a folder does not hold the shards that its new manifest lists, StoreError if the store refuses
    a new shard or the removal of an old one.
    """
    note = json.loads((staging / _NOTE).read_bytes())
    for change in note["folders"]:
        folder = Path(change["folder"])
        old = [Shard(**shard) for shard in change["old"]]
        new = [Shard(**shard) for shard in change["new"]]
        _replace_files(folder, _staged(staging, folder), old, new, store)
    (staging / _NOTE).unlink()
    sync_folder(staging)
    shutil.rmtree(staging)


def _replace_files(folder: Path, staged: Path, old: Sequence[Shard], new: Sequence[Shard], store: StoreConfig) -> None:
    """Replace the files of one folder.

    staged: folder of its new files.
    old, new: the shards that only its old, and only its new, manifest lists.
    """
    manifest = staged / MANIFEST_NAME
    if manifest.is_file():
        for shard in new:
            if store.url and (staged / shard.name).is_file():
                put(store, staged, shard)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)  # a folder of old and new files must not count as complete
        sync_folder(folder)
        for path in sorted(staged.iterdir()):
            if path != manifest:
                path.replace(folder / path.name)
        replaced = set() if store.url else {shard.name for shard in new}
        for name in {shard.name for shard in old} - replaced:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        manifest.replace(folder / MANIFEST_NAME)
        sync_folder(folder)
    Column(folder, store=store)  # raises ShardError if a shard is missing
    for shard in old if store.url else ():
        ShardStore(store).remove(shard)
