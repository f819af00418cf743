"""Write a column: reuse the shards of an interrupted run, and move the column into place once it is complete.

Five words:
content: describes the records of one shard before they exist: sources and settings, no bytes (`ShardContent`).
inputs: everything in a content that decides the bytes of the shard (`ShardContent.inputs`).
identity: SHA-256 of the column's name, the inputs and the code. An unfinished run's shard is reused only under an
    equal identity.
done note: the file written after a shard, `<shard>.done`. It holds the identity, the shard's digest, its rows of
    `records.parquet` and the rejected sources.
manifest: the last file written of a split. Its presence means that the split is complete.

One column, from its contents to its place:

    contents of a split     staging folder, beside the target                            target folder
    0: ShardContent --+     column/train/image-000000.tar   done/train/image-000000.done
    1: ShardContent --+-->  column/train/image-000001.tar   done/train/image-000001.done
                      |                  |                             |
             a task per shard,           |                    rows, shard by shard
             on any worker               |                             |
                                         |                             v
                            column/train/manifest.json <--- column/train/records.parquet
                                         |
                            once every split has its manifest: rename column/ ------>    train/, val/, ...

DVC deletes the outputs of a stage before it runs the stage. The staging folder is no output, so it survives a kill,
and the next run reuses each shard whose done note has the expected identity and whose bytes have the noted digest.

tars.py writes one shard. shard_tasks.py adds the done note. This file runs the tasks and moves the column into place.
derived.py describes columns that are computed from images. digests.py computes identities. runner.py declares how
tasks run and how their progress is shown; the caller chooses both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.shards.manifest import Manifest, in_order, write_manifest
from datasets.writing.digests import digest_of
from datasets.writing.runner import TaskRunner
from datasets.writing.shard_tasks import ShardContent, ShardTask, WrittenShard, run_shard_task, write_split_records
from files.durable import check_replaceable, sync_folder
from files.objects import StoreConfig


@dataclass(frozen=True, kw_only=True)
class ColumnTarget:
    """Where a column is written, and by which code.

    name: the column, such as "image" or "edge".
    folder: absolute path of the finished column, which gets a folder per split.
    staging: absolute path of the column's staging folder, on the same file system as `folder`.
    code: path -> digest of every file of code that can change the shards.
    store: store to which finished shards are moved; without an address they stay beside their manifest.
    check_inputs: called before the finished column is moved into place. It raises if the inputs are no longer those
        that the shards were made from.
    """

    name: str
    folder: Path
    staging: Path
    code: Mapping[str, str]
    store: StoreConfig
    check_inputs: Callable[[], None] = lambda: None


def commit_column(
    target: ColumnTarget,
    contents: Mapping[str, Mapping[int, ShardContent]],
    manifests: Mapping[str, Manifest],
    runner: TaskRunner,
    *,
    on_shard: Callable[[WrittenShard], None] = lambda written: None,
) -> None:
    """Replace a column by newly written shards of all its splits, a task per shard.

    contents: split -> number of a shard -> its content.
    manifests: split -> its manifest, still without shards, records and rejected sources.
    on_shard: called with every finished shard. An error that it raises stops the work and keeps the finished shards.
    The bytes do not depend on interruptions: a shard of an interrupted run is reused only under an equal identity.
    Raises WritingError if a split has no usable record; UserError, with nothing changed, if the folder of the finished
    column cannot be replaced.
    """
    check_replaceable(target.folder)
    shutil.rmtree(target.folder, ignore_errors=True)
    tasks = {split: _shard_tasks(target, split, of_split) for split, of_split in contents.items()}
    queue = [task for of_split in tasks.values() for task in of_split]
    _remove_foreign_files(target.staging, queue)
    written = _run_tasks(target.name, queue, runner, on_shard)
    for split, of_split in tasks.items():
        _complete_split(manifests[split], of_split, [written[split, task.index] for task in of_split])
    target.check_inputs()
    target.folder.parent.mkdir(exist_ok=True)
    _column_folder(target).rename(target.folder)
    sync_folder(target.folder.parent)
    shutil.rmtree(target.staging)


def _column_folder(target: ColumnTarget) -> Path:
    """Return the folder inside the staging folder that becomes the finished column."""
    return target.staging / "column"


def _shard_tasks(target: ColumnTarget, split: str, contents: Mapping[int, ShardContent]) -> list[ShardTask]:
    code = digest_of(target.code)
    return [
        ShardTask(
            split=split,
            column=target.name,
            index=index,
            content=content,
            folder=_column_folder(target) / split,
            notes=target.staging / "done" / split,
            code=code,
            store=target.store,
        )
        for index, content in contents.items()
    ]


def _run_tasks(
    column: str, queue: Sequence[ShardTask], runner: TaskRunner, on_shard: Callable[[WrittenShard], None]
) -> dict[tuple[str, int], WrittenShard]:
    """Run all tasks and return (split, number of the shard) -> its done note."""
    written: dict[tuple[str, int], WrittenShard] = {}
    num_done = 0
    with runner.open_bar(column, sum(task.content.num_sources for task in queue), "images") as bar:
        for split, index, num_sources, note, is_reused in runner.map_tasks(_run_task, queue):
            written[split, index] = note
            num_done += num_sources
            bar.at(num_done, f"{len(written)}/{len(queue)} shards", skipped=num_sources if is_reused else 0)
            on_shard(note)
    return written


def _run_task(task: ShardTask) -> tuple[str, int, int, WrittenShard, bool]:
    # Results come in order of completion, so each says which shard it is of.
    return task.split, task.index, task.content.num_sources, *run_shard_task(task)


def _complete_split(manifest: Manifest, tasks: Sequence[ShardTask], written: Sequence[WrittenShard]) -> None:
    """Write `records.parquet` of one split, and its manifest last."""
    shards, records_sha256 = write_split_records(tasks, written)
    rejected = in_order(reject for note in written for reject in note.rejected)
    complete = replace(
        manifest,
        shards=shards,
        records_sha256=records_sha256,
        rejected=rejected,
        metadata_dropped=sum(note.metadata_dropped for note in written),
    )
    write_manifest(tasks[0].folder, complete)


def _remove_foreign_files(staging: Path, tasks: Sequence[ShardTask]) -> None:
    """Remove every file that no task will write: of a run with other contents, or partial files of killed writers."""
    planned = {path for task in tasks for path in (task.shard_path, task.done_note)}
    for path in staging.rglob("*"):
        if path.is_file() and path not in planned:
            path.unlink()
    for folder in sorted((path for path in staging.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
