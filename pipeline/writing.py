"""Arguments that every stage that writes a column passes to `datasets.writing`: folders, code, workers, progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets.shards.manifest import ManifestError
from datasets.writing.runner import TaskRunner
from datasets.writing.staging import ColumnTarget
from files.locks import hold_lock
from jobs.cluster.launch import map_tasks
from pipeline.columns import open_manifest
from pipeline.inputs import StageInputs
from pipeline.layout import column_folder, column_lock, image_splits, staging_folder
from pipeline.params import Params
from pipeline.progress import Bar


def column_target(params: Params, column: str, inputs: StageInputs) -> ColumnTarget:
    """Return where a column is written, by the code that the inputs of its stage name."""
    return ColumnTarget(
        name=column,
        folder=column_folder(column, "").resolve(),
        staging=staging_folder(column).resolve(),
        code=inputs.code,
        store=params.store,
        check_inputs=inputs.check_unchanged,
    )


@contextlib.contextmanager
def hold_columns(*written: str, read: Sequence[str] = ()) -> Iterator[None]:
    """Keep other processes from writing some columns, until the context ends. Also a decorator.

    written: names of the folders in shards/ that are written: image, edges, semantics or mask.
    read: names of those that are only read; several processes may read them at once.
    Raises BusyError if another process writes one of them, or reads one of `written`.
    """
    with contextlib.ExitStack() as locks:
        for name in (*written, *read):
            locks.enter_context(hold_lock(column_lock(name), f"shards/{name}", is_shared=name in read))
        yield


def task_runner(params: Params) -> TaskRunner:
    """Return the runner of tasks: `cluster.num_workers` workers, and a bar on the terminal."""
    return TaskRunner(map_tasks=partial(map_tasks, num_workers=params.cluster.num_workers), open_bar=Bar)


def image_folders(params: Params) -> dict[str, Path]:
    """Return split -> absolute path of its image shards, for every complete split.

    Raises ManifestError if there is none, ShardError if a split is not as params.yaml describes it.
    """
    splits = image_splits()
    if not splits:
        raise ManifestError(f"{column_folder('image', '')} has no complete split; run: dvc repro ingest")
    for split in splits:
        open_manifest(params, "image", split)
    return {split: column_folder("image", split).resolve() for split in splits}
