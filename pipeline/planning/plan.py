"""Plan a training before it starts: prove that every record is read once, and count bytes read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from datasets.shards.manifest import Manifest, ManifestError
from datasets.stream.plan import Plan, sharing_problem
from datasets.stream.proof import Proof, prove
from datasets.writing.tars import even_sizes
from jobs.checks.footprint import Footprint, footprints
from jobs.checks.units import format_bytes
from pipeline.layout import column_folder
from pipeline.params import Params, ParamsError
from pipeline.planning.shards import all_bytes, shards_bytes, training_manifests
from pipeline.planning.workers import workers_of
from pipeline.progress import track
from pipeline.tables import align_right

_IMAGES_PER_SECOND = 100.0  # a round number, so that megabytes per second can be scaled by eye


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Amounts that one generator, or one batch size, reads.

    name: the generator, or "batch N".
    workers: number of training processes.
    batch_size: images per step, over all workers.
    per_rank: images per step and worker; None if the batch cannot be shared equally.
    steps_per_epoch: not always whole, since a batch may cross the end of an epoch.
    steps, epochs, weights_bytes, checkpoint_bytes: of the whole training; None without a generator.
    bytes_per_epoch, megabytes_per_second: None if sizes are not known.
    problem: why the workers cannot train so, or "".
    """

    name: str
    workers: int
    batch_size: int
    per_rank: int | None
    steps_per_epoch: float
    steps: int | None = None
    epochs: float | None = None
    bytes_per_epoch: int | None = None
    megabytes_per_second: float | None = None
    weights_bytes: int | None = None
    checkpoint_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The whole plan.

    records, shards: of the train split.
    smallest_shard, largest_shard: in records.
    workers: the most training processes of a generator.
    window_shards, window_records: the largest group that is shuffled together.
    window_bytes: all columns of that group; None if sizes are not known.
    disk_bytes: all shards that are here; None if they were not looked at.
    images_per_second: the speed for which megabytes per second are stated.
    """

    records: int
    shards: int
    smallest_shard: int
    largest_shard: int
    workers: int
    window_shards: int
    window_records: int
    window_bytes: int | None
    disk_bytes: int | None
    images_per_second: float
    readings: tuple[Reading, ...]
    proofs: tuple[Proof, ...]


def run(
    params: Params,
    *,
    records: int | None = None,
    shards: int | None = None,
    workers: int | None = None,
    batch: int | None = None,
    images_per_second: float = _IMAGES_PER_SECOND,
) -> Planned:
    """Plan for the shards that are here and the generators of params.yaml, or for numbers alone.

    records: plan for so many records, without shards and generators.
    shards: with records, the number of shards; None makes them as ingest would.
    workers: number of training processes; None takes those that would train each generator.
    batch: with records, images per step over all workers; None takes one per worker.
    images_per_second: the speed for which megabytes per second are stated.
    Raises ParamsError for numbers that make no plan, ManifestError without shards, ShardError for shards that are
    not as params.yaml describes them, PlanError if the proof fails.
    """
    _check_numbers(records=records, shards=shards, workers=workers, batch=batch)
    if records is None:
        manifests = _manifests(params)
        sizes = [shard.records for shard in manifests["image"].shards]
        column_bytes = {name: shards_bytes(manifest) for name, manifest in manifests.items()}
        readings = _generator_readings(params, sum(sizes), workers, column_bytes, images_per_second)
    else:
        sizes, column_bytes = _shard_sizes(params, records, shards), {}
        workers = params.cluster.max_processes if workers is None else workers
        size = batch or workers
        readings = [_shared_reading(f"batch {size}", size, workers, 1, records)]
    window = sorted(sizes)[-params.train.samples.plan.window_shards :]
    return Planned(
        records=sum(sizes),
        shards=len(sizes),
        smallest_shard=min(sizes),
        largest_shard=max(sizes),
        workers=max(reading.workers for reading in readings),
        window_shards=len(window),
        window_records=sum(window),
        window_bytes=round(sum(column_bytes.values()) * sum(window) / sum(sizes)) if column_bytes else None,
        disk_bytes=all_bytes() if column_bytes else None,
        images_per_second=images_per_second,
        readings=tuple(readings),
        proofs=_prove_batches(params, sizes, readings),
    )


def _manifests(params: Params) -> dict[str, Manifest]:
    """Return the manifests of the columns that training reads, by the name that a recipe gives them."""
    manifests = {name: manifest for name, (_, manifest) in training_manifests(params).items()}
    if "image" not in manifests:
        raise ManifestError(f"{column_folder('image', 'train')} is missing; run: dvc repro ingest, or pass --records")
    return manifests


def _check_numbers(*, records: int | None, shards: int | None, workers: int | None, batch: int | None) -> None:
    for name, value in {"records": records, "shards": shards, "workers": workers, "batch": batch}.items():
        if value is not None and value < 1:
            raise ParamsError(f"--{name} must be at least 1, got {value}")
    if records is None and (shards or batch):
        raise ParamsError("--shards and --batch go with --records; without it the shards and generators here count")
    if records is not None and shards is not None and shards > records:
        raise ParamsError(f"--shards must not exceed --records, got {shards} and {records}")


def _shard_sizes(params: Params, records: int, shards: int | None) -> list[int]:
    """Return the records of each shard: as ingest would make them, or of a given number of shards."""
    if shards is None:
        return even_sizes(records, params.ingest.records_per_shard)
    small, num_larger = divmod(records, shards)
    return [small + 1] * num_larger + [small] * (shards - num_larger)


def _generator_readings(
    params: Params, records: int, workers: int | None, column_bytes: Mapping[str, int], images_per_second: float
) -> list[Reading]:
    return [
        _generator_reading(
            footprint,
            records,
            workers_of(params, footprint, workers),
            params.train.accumulate,
            column_bytes,
            images_per_second,
        )
        for footprint in footprints(params.generators, params.train)
    ]


def _generator_reading(
    footprint: Footprint,
    records: int,
    workers: int,
    accumulate: int,
    column_bytes: Mapping[str, int],
    images_per_second: float,
) -> Reading:
    needed = ("image", *footprint.columns)
    is_known = all(column in column_bytes for column in needed)
    bytes_per_epoch = sum(column_bytes[column] for column in needed) if is_known else None
    return replace(
        _shared_reading(footprint.generator, footprint.batch_size, workers, accumulate, records),
        steps=footprint.steps,
        epochs=footprint.steps * footprint.batch_size / records,
        bytes_per_epoch=bytes_per_epoch,
        megabytes_per_second=None if bytes_per_epoch is None else bytes_per_epoch / records * images_per_second / 1e6,
        weights_bytes=footprint.weights_bytes,
        checkpoint_bytes=footprint.checkpoint_bytes,
    )


def _shared_reading(name: str, batch_size: int, workers: int, accumulate: int, records: int) -> Reading:
    problem = sharing_problem(batch_size, workers, accumulate)
    return Reading(
        name=name,
        workers=workers,
        batch_size=batch_size,
        per_rank=None if problem else batch_size // workers,
        steps_per_epoch=records / batch_size,
        problem=problem,
    )


def _prove_batches(params: Params, sizes: Sequence[int], readings: Sequence[Reading]) -> tuple[Proof, ...]:
    """Prove the order of reading for each batch size that can be shared, with 1, 2 and all workers."""
    plan = Plan(tuple(sizes), params.seed, params.train.samples.plan)
    numbers: dict[int, set[int]] = {}
    for reading in readings:
        if not reading.problem:
            numbers.setdefault(reading.batch_size, {1, 2}).add(reading.workers)
    proofs = (
        prove(plan, size, [number for number in sorted(numbers[size]) if not sharing_problem(size, number)])
        for size in sorted(numbers)
    )
    return tuple(track(proofs, "plan", len(numbers), "proofs"))


def render(planned: Planned, *, as_json: bool) -> str:
    """Return the plan as text or as JSON."""
    if as_json:
        return json.dumps(asdict(planned), indent=2)
    more = "time     hours, worker-hours and memory: add --probe, which takes a few steps of each generator here"
    return "\n".join([*render_lines(planned), more])


def render_lines(planned: Planned) -> list[str]:
    """Return the lines of the plan as text."""
    window = "" if planned.window_bytes is None else f", {format_bytes(planned.window_bytes)} with all columns"
    lines = [
        f"data     {planned.records:,} records in {planned.shards:,} shards of "
        f"{planned.smallest_shard:,} to {planned.largest_shard:,}",
        f"order    shuffled in windows of {planned.window_shards} shards: {planned.window_records:,} records{window}",
        "         (a node that keeps one window at hand reads every shard once per epoch)",
        *(f"proof    {_render_proof(proof)}" for proof in planned.proofs),
        "",
        *_render_table(planned),
        *(f"problem  {reading.name}: {reading.problem}" for reading in planned.readings if reading.problem),
    ]
    if planned.disk_bytes is not None:
        lines += [
            "",
            f"disk     shards {format_bytes(planned.disk_bytes)}, and as much in DVC's cache where it cannot link; "
            "of checkpoints two are kept and a third exists while it is written",
        ]
    return lines


def _render_proof(proof: Proof) -> str:
    worlds = ", ".join(str(each.ranks[0][1]) for each in proof.passes if len(each.ranks) == 1)
    restarts = ", and with a restart from each of these numbers to each other" if len(proof.passes) > 1 else ""
    return (
        f"batch {proof.batch_size}: walked through all {proof.records:,} records with {worlds} workers{restarts}: "
        f"each read once, and equally many by each worker at every step; {proof.located:,} look-ups agree"
    )


def _render_table(planned: Planned) -> list[str]:
    head = ("", "batch", "workers", "per worker", "steps/epoch", "steps", "epochs", "per epoch",
            f"at {planned.images_per_second:g} images/s", "weights", "checkpoint")  # fmt: skip
    return align_right([head, *map(_row, planned.readings)])


def _row(reading: Reading) -> tuple[str, ...]:
    rate = reading.megabytes_per_second
    return (
        reading.name,
        str(reading.batch_size),
        str(reading.workers),
        "-" if reading.per_rank is None else str(reading.per_rank),
        f"{reading.steps_per_epoch:,.1f}",
        "-" if reading.steps is None else f"{reading.steps:,}",
        "-" if reading.epochs is None else f"{reading.epochs:,.1f}",
        format_bytes(reading.bytes_per_epoch),
        "-" if rate is None else f"{rate:.2f} MB/s",
        format_bytes(reading.weights_bytes),
        format_bytes(reading.checkpoint_bytes),
    )
