"""Describe a probe: a few steps of one generator, with the shards that are here."""

from __future__ import annotations

from pathlib import Path

from datasets.shards.manifest import read_manifest
from jobs.checks.footprint import Footprint
from jobs.checks.probe import ProbeJob
from pipeline.params import Params
from pipeline.planning.shards import training_folders


def probe_job(
    params: Params,
    footprint: Footprint,
    workers: int,
    *,
    use_shards: bool,
    seconds: float | None,
    ranks: tuple[int, ...] = (0,),
) -> ProbeJob:
    """Describe the probe of one worker.

    footprint: of the generator.
    workers: number of training processes that share a batch.
    use_shards: whether to read the shards, if all needed columns are here; otherwise batches are made up.
    seconds: how long to measure; None takes one step of every kind.
    ranks: the workers whose batches are taken.
    """
    folders = training_folders(params.train.edges)
    columns = ("image", *footprint.columns)
    is_complete = use_shards and all(column in folders for column in columns)
    return ProbeJob(
        generator=footprint.generator,
        config=params.generators[footprint.generator],
        train=params.train,
        seed=params.seed,
        image_size=_made_up_side(params, folders.get("image")),
        folders={column: str(folders[column]) for column in columns} if is_complete else {},
        store=params.store,
        world_size=workers,
        ranks=ranks,
        threads=params.cluster.threads,
        seconds=seconds,
    )


def _made_up_side(params: Params, images: Path | None) -> int:
    """Return the side of made-up images, in pixels: as cropped, as stored, or as ingest would store them."""
    stored = read_manifest(images).parameters.get("size") if images else None
    return params.train.samples.crop or stored or params.ingest.size
