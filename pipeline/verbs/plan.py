"""Before anything trains: the proof that every record is read once, and what the run reads, keeps and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets.shards.manifest import read_manifest
from datasets.stream.plan import Plan, sharing_problem
from datasets.stream.proof import Proof, prove
from datasets.writing.tars import even_sizes
from jobs.checks.footprint import Footprint, footprint
from pipeline.layout import column_folder, columns_of, image_splits
from pipeline.params import Params, ParamsError
from pipeline.progress import track

_RATE = 100.0  # images per second, where none is given, so that a figure can be scaled by eye


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one generator, or one batch size, reads. epochs, steps: None where no generator is planned for.

    steps_per_epoch: not always whole, since a batch may lie across the end of an epoch. problem: why it cannot train
    so, or "".
    bytes_per_epoch, megabytes_per_second: None where sizes are not known.
    """

    name: str
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
    """The whole answer. window_records, window_bytes: what is shuffled together, and all columns of it.

    disk_bytes: of shards/, every column and split. images_per_second: for which megabytes_per_second is stated.
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
    images_per_second: float = _RATE,
) -> Planned:
    """Plan for the shards that lie here and the generators of params.yaml, or for numbers alone.

    records: plan for so many instead, in `shards` shards or as ingest would make, with batches of `batch` images
    over all workers (default: one image per worker). workers: instead of cluster.train_workers.
    Raises ParamsError for numbers that make no plan, ManifestError without shards, PlanError if the proof fails.
    """
    workers = params.cluster.max_processes if workers is None else workers
    for name, value in {"records": records, "shards": shards, "workers": workers, "batch": batch}.items():
        if value is not None and value < 1:
            raise ParamsError(f"--{name} must be at least 1, got {value}")
    if records is None and (shards or batch):
        raise ParamsError("--shards and --batch go with --records; without it the shards and generators here count")
    sizes, column_bytes = _here(params) if records is None else (_dealt(params, records, shards), {})
    plan = Plan(tuple(sizes), params.seed, params.train.samples.plan)
    if records is None:
        taken = footprints(params)
        parts = params.train.accumulate
        readings = [_of_generator(each, sum(sizes), workers, parts, column_bytes, images_per_second) for each in taken]
    else:
        size = batch or workers
        readings = [_shared(size, workers, 1, f"batch {size}", sum(sizes))]
    batches = sorted({reading.batch_size for reading in readings if not reading.problem})
    proofs = track((_prove(plan, size, workers) for size in batches), "plan", len(batches), "proofs")
    window = sorted(sizes)[-params.train.samples.plan.window_shards :]
    return Planned(
        records=sum(sizes),
        shards=len(sizes),
        smallest_shard=min(sizes),
        largest_shard=max(sizes),
        workers=workers,
        window_shards=len(window),
        window_records=sum(window),
        window_bytes=round(sum(column_bytes.values()) * sum(window) / sum(sizes)) if column_bytes else None,
        disk_bytes=disk_bytes() if column_bytes else None,
        images_per_second=images_per_second,
        readings=tuple(readings),
        proofs=tuple(proofs),
    )


def only(params: Params, generators: str | None) -> Params:
    """The parameters with these generators alone, which are named with commas between; None keeps all.

    Raises ParamsError for a name that params.yaml does not list.
    """
    if generators is None:
        return params
    for name in (names := generators.split(",")):
        if name not in params.generators:
            raise ParamsError(f"--generators: params.yaml has no {name!r}; it lists {', '.join(params.generators)}")
    return replace(params, generators={name: params.generators[name] for name in names})


def shard_folders(params: Params) -> dict[str, Path]:
    """What training reads and is here: column -> absolute folder."""
    read = {"image": "image", "edge": params.train.edges, "semantics": "semantics"}  # of several columns of edges, one
    there = columns_of("train")
    return {name: column_folder(column, "train").resolve() for name, column in read.items() if column in there}


def _here(params: Params) -> tuple[list[int], dict[str, int]]:
    """Sizes of the training shards, and the bytes of each column that training may read and that is there."""
    images = read_manifest(column_folder("image", "train"), remedy="dvc repro ingest, or pass --records")
    column_bytes = {
        name: sum(shard.bytes for shard in read_manifest(folder).shards)
        for name, folder in shard_folders(params).items()
    }
    return [shard.records for shard in images.shards], column_bytes


def _bytes(column: str, split: str) -> int:
    return sum(shard.bytes for shard in read_manifest(column_folder(column, split)).shards)


def _dealt(params: Params, records: int, shards: int | None) -> list[int]:
    if shards is None:
        return even_sizes(records, params.ingest.records_per_shard)
    if shards > records:
        raise ParamsError(f"--shards must not exceed --records, got {shards} and {records}")
    return [records // shards + (index < records % shards) for index in range(shards)]


def _shared(batch_size: int, workers: int, parts: int, name: str, records: int) -> Reading:
    problem = sharing_problem(batch_size, workers, parts)
    return Reading(
        name=name,
        batch_size=batch_size,
        per_rank=None if problem else batch_size // workers,
        steps_per_epoch=records / batch_size,
        problem=problem,
    )


def footprints(params: Params) -> list[Footprint]:
    """What each generator takes, as it is to be trained."""
    has_average = params.train.ema_decay is not None
    return [footprint(name, config, has_average=has_average) for name, config in params.generators.items()]


def _of_generator(
    taken: Footprint,
    records: int,
    workers: int,
    parts: int,
    column_bytes: dict[str, int],
    images_per_second: float,
) -> Reading:
    needed = ("image", *taken.columns)
    known = sum(column_bytes[column] for column in needed) if all(c in column_bytes for c in needed) else None
    return replace(
        _shared(taken.batch_size, workers, parts, taken.generator, records),
        steps=taken.steps,
        epochs=taken.steps * taken.batch_size / records,
        bytes_per_epoch=known,
        megabytes_per_second=None if known is None else known / records * images_per_second / 1e6,
        weights_bytes=taken.weights_bytes,
        checkpoint_bytes=taken.checkpoint_bytes,
    )


def _prove(plan: Plan, batch_size: int, workers: int) -> Proof:
    return prove(plan, batch_size, sorted({w for w in (1, 2, workers) if not sharing_problem(batch_size, w)}))


def disk_bytes() -> int:
    """Of all shards that are here, every column and split."""
    splits = image_splits(complete_only=False)
    return sum(_bytes(column, split) for split in splits for column in columns_of(split))


def render(planned: Planned, *, as_json: bool) -> str:
    """The plan, for people or as JSON."""
    if as_json:
        return json.dumps(asdict(planned), indent=2)
    more = "time     hours, worker-hours and memory: add --probe, which takes a few steps of each generator here"
    return "\n".join([*lines(planned), more])


def lines(planned: Planned) -> list[str]:
    """The plan for people."""
    window = "" if planned.window_bytes is None else f", {as_bytes(planned.window_bytes)} with all columns"
    found = [
        f"data     {planned.records:,} records in {planned.shards:,} shards of "
        f"{planned.smallest_shard:,} to {planned.largest_shard:,}",
        f"order    shuffled in windows of {planned.window_shards} shards: {planned.window_records:,} records{window}",
        "         (a node that keeps one window at hand reads every shard once per epoch)",
        *(f"proof    {_of_proof(proof)}" for proof in planned.proofs),
        "",
        *_table(planned),
        *(f"problem  {reading.name}: {reading.problem}" for reading in planned.readings if reading.problem),
    ]
    if planned.disk_bytes is not None:
        found += [
            "",
            f"disk     shards {as_bytes(planned.disk_bytes)}, and as much in DVC's cache where it cannot link; "
            "of checkpoints two are kept and a third exists while it is written",
        ]
    return found


def _of_proof(proof: Proof) -> str:
    worlds = ", ".join(str(each.ranks[0][1]) for each in proof.passes if len(each.ranks) == 1)
    restarts = ", and with a restart from each of these numbers to each other" if len(proof.passes) > 1 else ""
    return (
        f"batch {proof.batch_size}: gone through all {proof.records:,} records with {worlds} workers{restarts}: "
        f"each read once, at every step equally many by each worker; {proof.located:,} look-ups agree"
    )


def _table(planned: Planned) -> list[str]:
    head = ("", "batch", "per worker", "steps/epoch", "steps", "epochs", "per epoch",
            f"at {planned.images_per_second:g} images/s", "weights", "checkpoint")  # fmt: skip
    rows: list[Sequence[str]] = [head]
    for each in planned.readings:
        rate = "-" if each.megabytes_per_second is None else f"{each.megabytes_per_second:.2f} MB/s"
        rows.append(
            (
                each.name,
                str(each.batch_size),
                "-" if each.per_rank is None else str(each.per_rank),
                f"{each.steps_per_epoch:,.1f}",
                "-" if each.steps is None else f"{each.steps:,}",
                "-" if each.epochs is None else f"{each.epochs:,.1f}",
                as_bytes(each.bytes_per_epoch),
                rate,
                as_bytes(each.weights_bytes),
                as_bytes(each.checkpoint_bytes),
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows]  # fmt: skip


def as_bytes(count: float | None) -> str:
    """Such as 25.3 GB; "-" where it is not known."""
    if count is None:
        return "-"
    power = next((p for p in (4, 3, 2, 1) if count >= 1000**p), 0)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
