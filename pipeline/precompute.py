"""Image shards -> edge shards, and the frozen masks of the evaluation suite, with the same keys in the same order."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.decode import decode_image, encode_grey_png
from datasets.edges import EdgeConfig, canny_edges
from datasets.manifest import Manifest, Shard, write_manifest
from datasets.plan import derive_seed
from datasets.shards import Column, Field, Sample, write_records, write_shard
from jobs.launch import map_tasks
from masks.hole_ratio import BINS, member_of_bin
from masks.sampler import MaskConfig, draw_mask_in_bin
from pipeline.layout import column_folder
from pipeline.params import Params, ParamsError
from pipeline.progress import track


@dataclass(frozen=True, kw_only=True)
class ColumnTask:
    """One shard of a column: `members(key, image)` gives a record's members."""

    images: Path
    folder: Path
    column: str
    index: int
    members: Callable[[str, np.ndarray], dict[str, bytes]]


@dataclass(frozen=True)
class EdgeMembers:
    """Canny edges of the whole image, stored as 0 and 255."""

    config: EdgeConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(canny_edges(image, self.config) * 255)}


@dataclass(frozen=True)
class SuiteMembers:
    """A mask per hole-ratio bin, a function of (key, seed, bin), stored with 255 = hole."""

    config: MaskConfig
    seed: int

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        members = {}
        for name, low, high in BINS:
            mask = draw_mask_in_bin(
                self.config, *image.shape[:2], low, high, derive_seed(self.seed, "suite", key, name)
            )
            members[member_of_bin("mask", name)] = encode_grey_png(mask * 255)
        return members


def run_edges(params: Params) -> None:
    """Write shards/edge/<split> for every split of shards/image."""
    splits = sorted(path.parent.name for path in column_folder("image", "").glob("*/manifest.json"))
    _write_column(params, splits, "edge", EdgeMembers(params.edges), asdict(params.edges))


def run_masks(params: Params) -> None:
    """Write shards/mask/<split> for the split that is evaluated on."""
    if not column_folder("image", params.suite.split).is_dir():
        there = ", ".join(sorted(path.name for path in column_folder("image", "").iterdir()))
        raise ParamsError(f"params.yaml: suite.split is {params.suite.split!r}; the data set has {there}")
    members = SuiteMembers(params.suite.masks, params.seed)
    parameters = {"masks": asdict(params.suite.masks), "seed": params.seed, "hole": 255, "bins": BINS}
    _write_column(params, [params.suite.split], "mask", members, parameters)


def _write_column(
    params: Params, splits: Sequence[str], column: str, members: Callable, parameters: Mapping[str, Any]
) -> None:
    """Write one column of some splits, a shard a task, each split's manifest last."""
    images = {split: Column(column_folder("image", split), remedy="dvc repro ingest") for split in splits}
    tasks = []
    shutil.rmtree(column_folder(column, ""), ignore_errors=True)
    for split in splits:
        folder = column_folder(column, split)
        folder.mkdir(parents=True)
        tasks += [
            ColumnTask(
                images=images[split].folder.resolve(),
                folder=folder.resolve(),
                column=column,
                index=index,
                members=members,
            )
            for index in range(len(images[split].manifest.shards))
        ]
    done: dict[str, list] = {split: [] for split in splits}
    work = map_tasks(_write_shard, tasks, num_workers=params.cluster.num_workers)
    for task, result in track(work, column, len(tasks), "shards"):
        done[task.folder.name].append(result)
    for split in splits:
        written = sorted(done[split], key=lambda result: result[0].name)
        _finish(column, images[split].manifest, column_folder(column, split), written, dict(parameters))


def _finish(column: str, images: Manifest, folder: Path, written: list, parameters: dict[str, Any]) -> None:
    write_manifest(
        folder,
        Manifest(
            dataset=images.dataset,
            split=images.split,
            column=column,
            licence=images.licence,
            shards=tuple(shard for shard, _ in written),
            records_sha256=write_records(folder, [field for _, fields in written for field in fields]),
            made_from=images.digest,
            parameters=parameters,
        ),
    )


def _write_shard(task: ColumnTask) -> tuple[ColumnTask, tuple[Shard, list[Field]]]:
    images = Column(task.images, remedy="dvc repro ingest")
    samples = (
        Sample(key=key, members=task.members(key, decode_image(images.read(record))), about={})
        for record in images.records_of(task.index)
        for key in (images.keys[record].as_py(),)
    )
    return task, write_shard(task.folder, task.column, task.index, samples)
