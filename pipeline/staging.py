"""How a column is written: its shards in a folder aside, taken up again after a kill, and put in place once whole.

DVC deletes a stage's outputs before it runs the stage, so what an interrupted run has finished must lie elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.shards.manifest import Manifest, in_order, write_manifest
from datasets.writing.parts import PartTask, ShardContent, WrittenShard, digest_of, merge_parts, write_part
from files.durable import sync_folder
from files.objects import StoreConfig
from jobs.cluster.launch import map_tasks
from pipeline.layout import column_folder, staging_folder
from pipeline.progress import Bar


def commit_column(
    column: str,
    plan: Mapping[str, Mapping[int, ShardContent]],
    manifests: Mapping[str, Manifest],
    *,
    code: Mapping[str, str],
    num_workers: int,
    store: StoreConfig,
    on_part: Callable[[WrittenShard], None] = lambda part: None,
) -> None:
    """Replace shards/<column> by the shards of all splits, a task each, every split's manifest last.

    plan: of each split, what fills the shard of which number. manifests: of each split, complete but for what the
    shards are. code: digests of the code that makes the shards, see `stage_code`.
    on_part: told of every finished shard; what it raises stops the work, and the shards so far are kept for a rerun.
    Shards that an interrupted run left aside are taken if they were made of the same sources, parameters and code; so
    the bytes are those of an undisturbed run.
    """
    target, staging = column_folder(column, "").resolve(), staging_folder(column).resolve()
    shutil.rmtree(target, ignore_errors=True)
    code_digest = digest_of(code)
    tasks = {
        split: [
            PartTask(
                split=split,
                folder=staging / "column" / split,
                receipts=staging / "receipts" / split,
                column=column,
                index=index,
                content=content,
                code=code_digest,
                store=store,
            )
            for index, content in contents.items()
        ]
        for split, contents in plan.items()
    }
    _remove_foreign_files(staging, [task for of_split in tasks.values() for task in of_split])
    parts = _write_parts(column, tasks, num_workers, on_part)
    for split, ours in tasks.items():
        of_split = [parts[split, task.index] for task in ours]
        shards, records_sha256 = merge_parts(ours, of_split)
        rejected = in_order(reject for part in of_split for reject in part.rejected)
        manifest = replace(manifests[split], shards=shards, records_sha256=records_sha256, rejected=rejected)
        write_manifest(ours[0].folder, manifest)
    target.parent.mkdir(exist_ok=True)
    (staging / "column").rename(target)
    sync_folder(target.parent)
    shutil.rmtree(staging)


def _write_parts(
    column: str, tasks: Mapping[str, Sequence[PartTask]], num_workers: int, on_part: Callable[[WrittenShard], None]
) -> dict[tuple[str, int], WrittenShard]:
    queue = [task for of_split in tasks.values() for task in of_split]
    parts: dict[tuple[str, int], WrittenShard] = {}
    num_done = 0
    with Bar(column, sum(task.content.num_sources for task in queue), "images") as bar:
        for split, index, num_sources, part, was_there in map_tasks(_write, queue, num_workers=num_workers):
            parts[split, index] = part
            num_done += num_sources
            bar.at(num_done, f"{len(parts)}/{len(queue)} shards", skipped=num_sources if was_there else 0)
            on_part(part)
    return parts


def _write(task: PartTask) -> tuple[str, int, int, WrittenShard, bool]:
    return task.split, task.index, task.content.num_sources, *write_part(task)


def _remove_foreign_files(staging: Path, tasks: Sequence[PartTask]) -> None:
    """Remove what no task will write: of a run that was planned otherwise, and what killed writers left."""
    planned = {path for task in tasks for path in (task.shard_path, task.receipt_path)}
    for path in staging.rglob("*"):
        if path.is_file() and path not in planned:
            path.unlink()
    for folder in sorted((path for path in staging.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
