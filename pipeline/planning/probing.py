"""Describe a probe: a few steps of one generator, with the shards that are here."""

from __future__ import annotations

from jobs.checks.footprint import Footprint
from jobs.checks.probe import ProbeJob
from pipeline.params import Params
from pipeline.planning.shards import training_manifests


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
    here = training_manifests(params, footprint.columns) if use_shards else {}
    columns = ("image", *footprint.columns)
    is_complete = all(column in here for column in columns)
    return ProbeJob(
        generator=footprint.generator,
        config=params.generators[footprint.generator],
        train=params.train,
        seed=params.seed,
        image_size=params.train.samples.crop or params.ingest.size,
        folders={column: str(here[column][0]) for column in columns} if is_complete else {},
        digests={column: here[column][1].digest for column in columns} if is_complete else {},
        store=params.store,
        world_size=workers,
        ranks=ranks,
        threads=params.cluster.threads,
        seconds=seconds,
    )
