"""Records taken out of finished shards: only the shards that hold one are written anew, and all files change at once.

New files are staged first, with a note of what goes where; only then are they moved into place, folder by folder, each
manifest last, and the shards that they replace removed. What lies in a store goes there, as objects of other names. A
kill at any point leaves either the old state or a note from which `finish_removal` goes on.
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
    """One shard of one folder, or of the store, to write anew into `staged`, without some keys."""

    folder: Path
    staged: Path
    column: str
    shard: Shard
    keys: frozenset[str]
    store: StoreConfig

    @property
    def number(self) -> int:
        return shard_number(self.shard.name)


def staged_folder(staging: Path, folder: Path) -> Path:
    """Where the new files of a folder wait."""
    return staging / folder


def removal_tasks(folder: Path, staging: Path, keys: Collection[str], store: StoreConfig) -> list[RemovalTask]:
    """A task per shard of a folder that holds one of the keys."""
    manifest = read_manifest(folder)
    table = read_table(folder, columns=("key", "shard"))
    touched = set(table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))["shard"].to_pylist())
    return [
        RemovalTask(
            folder=folder.resolve(),
            staged=staged_folder(staging, folder).resolve(),
            column=manifest.column,
            shard=shard,
            keys=frozenset(keys),
            store=store,
        )
        for shard in manifest.shards
        if shard_number(shard.name) in touched
    ]


def rewrite_shard(task: RemovalTask) -> tuple[RemovalTask, Shard | None, list[Member]]:
    """Write one shard without its keys; returns its entry, None if no record is left, and its rows.

    Every byte that is kept was compared with its digest: raises ShardError that names the first that differs, and
    StoreError if a store does not give the shard.
    """
    samples = list(_kept(task))
    if not samples:
        return task, None, []
    return task, *write_shard(task.staged, task.column, task.number, samples)


def _kept(task: RemovalTask) -> Iterator[NewRecord]:
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
    """Stage a folder's records and manifest beside its rewritten shards, and return that manifest.

    rejected: what its manifest lists from now on, in addition. made_from: digest of the images' new manifest.
    Raises ShardError if nothing would be left of the folder.
    """
    old = read_manifest(folder)
    new = {task.number: (shard, fields) for task, shard, fields in rewritten}
    shards = tuple(
        shard
        for before in old.shards
        for shard in (new.get(shard_number(before.name), (before, []))[0],)
        if shard is not None
    )
    if not shards:
        raise ShardError(f"no record of {folder} would be left; a split cannot be empty")
    staged = staged_folder(staging, folder)
    digest = write_table(staged, _merged(read_table(folder), {number: fields for number, (_, fields) in new.items()}))
    manifest = replace(
        old,
        shards=shards,
        records_sha256=digest,
        made_from=made_from,
        rejected=in_order([*old.rejected, *rejected]),
    )
    write_manifest(staged, manifest)
    return manifest


def _merged(table: pa.Table, rewritten: dict[int, list[Member]]) -> pa.Table:
    """The old rows, those of rewritten shards replaced; to the byte what the records would be had they been written so
    from the start: a column that holds nothing any more has no type."""
    numbers = table["shard"].to_numpy()
    parts, start = [], 0
    for number, fields in sorted(rewritten.items()):
        first, last = (int(place) for place in numbers.searchsorted([number, number + 1]))
        parts.append(table.slice(start, first - start))
        if fields:
            parts.append(_typed(records_table(fields), table.schema))
        start = last
    merged = pa.concat_tables([*parts, table.slice(start)]).combine_chunks()
    for place, name in enumerate(merged.column_names):
        if merged[name].null_count == len(merged):
            merged = merged.set_column(place, name, pa.nulls(len(merged)))
    return merged


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.select(schema.names).cast(schema)


def commit_removal(staging: Path, folders: Sequence[Path], about: dict[str, Any]) -> None:
    """Decide: from here on the staged files will be moved into place, by `finish_removal`, even after a kill.

    about: what the caller wants to know again then.
    """
    note = {"about": about, "folders": [_change(folder, staged_folder(staging, folder)) for folder in folders]}
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
    """The `about` of a removal that was decided and not finished; None if there is none.

    What was staged and not decided is thrown away, and so is a removal from shards that were made anew since.
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
    """Whether a folder is as it was, as it shall be, or, its manifest taken away, between the two."""
    folder = Path(change["folder"])
    if not (folder / MANIFEST_NAME).is_file():
        return folder.is_dir()
    try:
        return read_manifest(folder).digest in (change["before"], change["after"])
    except ManifestError:
        return False


def finish_removal(staging: Path, store: StoreConfig) -> None:
    """Move what was decided into place, and remove what it replaces; may be called again after a kill.

    Raises ShardError if a folder does not hold the shards that its new manifest lists, StoreError if the store does not
    take a new shard or keeps an old one; then it may be called again, too.
    """
    note = json.loads((staging / _NOTE).read_bytes())
    for change in note["folders"]:
        folder = Path(change["folder"])
        old, new = ([Shard(**shard) for shard in change[which]] for which in ("old", "new"))
        _replace(folder, staged_folder(staging, folder), old, new, store)
    (staging / _NOTE).unlink()
    sync_folder(staging)
    shutil.rmtree(staging)


def _replace(folder: Path, staged: Path, old: Sequence[Shard], new: Sequence[Shard], store: StoreConfig) -> None:
    manifest = staged / MANIFEST_NAME
    if manifest.is_file():
        for shard in new:
            if store.url and (staged / shard.name).is_file():
                put(store, staged, shard)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)  # half old, half new is not complete
        sync_folder(folder)
        for path in sorted(staged.iterdir()):
            if path != manifest:
                path.replace(folder / path.name)
        for name in {shard.name for shard in old} - (set() if store.url else {shard.name for shard in new}):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        manifest.replace(folder / MANIFEST_NAME)
        sync_folder(folder)
    Column(folder, store=store)
    for shard in old if store.url else ():
        ShardStore(store).remove(shard)
