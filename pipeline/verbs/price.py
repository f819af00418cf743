"""What training costs before it is paid: hours, memory and disk, from a few steps of every generator on this device."""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.shards.manifest import read_manifest
from datasets.stream.plan import sharing_problem
from jobs.checks.apart import ProbeError, run_apart
from jobs.checks.footprint import Footprint, PhaseFootprint, checkpoints_at_once
from jobs.checks.probe import PhaseProbe, Probe, ProbeJob, probe
from pipeline.params import Params, ParamsError
from pipeline.progress import Bar
from pipeline.verbs import plan
from pipeline.verbs.plan import Planned, aligned, as_bytes, footprints, shard_folders

_TIGHT = 0.9  # of the memory: beyond it, what is beside the worker may not find room


@dataclass(frozen=True, kw_only=True)
class Range:
    """A median and the middle half of what was measured; of fewer than four values the smallest and the largest."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, middle=self.middle + other.middle, high=self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)


NOTHING = Range(low=0.0, middle=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True)
class PhasePrice:
    """compute_seconds: of all steps, None if not probed. measured_steps: 0 if not probed; is_warm: whether a first,
    slower step was left out. hours: with reading. gradient_bytes: that workers sum per step."""

    name: str
    steps: int
    measured_steps: int
    is_warm: bool
    compute_seconds: Range | None
    hours: Range | None
    gradient_bytes: int


@dataclass(frozen=True, kw_only=True)
class GeneratorPrice:
    """One generator. hours, worker_hours, cost: None unless every phase was probed. problem: why it cannot be trained
    so, or "".

    reading_seconds: per step and worker; None if not measured. exchange_hours: for all gradients, at the rate given.
    memory: the verdict in words; fits: whether it says so.
    """

    name: str
    problem: str = ""
    images_per_worker: int | None = None
    pixels: tuple[int, int] | None = None
    phases: tuple[PhasePrice, ...] = ()
    reading_seconds: Range | None = None
    hours: Range | None = None
    worker_hours: Range | None = None
    cost: Range | None = None
    exchange_hours: float | None = None
    peak_bytes: int | None = None
    memory: str = ""
    fits: bool | None = None

    @property
    def not_probed(self) -> tuple[str, ...]:
        return tuple(phase.name for phase in self.phases if phase.hours is None)


@dataclass(frozen=True, kw_only=True)
class DiskPrice:
    """What is still to be written to one disk, at most, and what is free there."""

    path: str
    needed_bytes: int
    free_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Price:
    """hours, worker_hours, cost: of all generators one after another; None unless all are known."""

    device: str
    is_gpu: bool
    workers: int
    threads: int
    loader_workers: int
    gigabits_per_second: float | None
    price_per_hour: float | None
    generators: tuple[GeneratorPrice, ...]
    disks: tuple[DiskPrice, ...]
    hours: Range | None
    worker_hours: Range | None
    cost: Range | None

    @property
    def is_good(self) -> bool:
        """Whether everything was priced and fits."""
        return self.hours is not None and all(each.fits for each in self.generators) and all(d.fits for d in self.disks)


def run(
    params: Params,
    *,
    workers: int | None = None,
    use_shards: bool = True,
    seconds: float = 20.0,
    gigabits_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> Price:
    """Probe every generator on this device, each in a process of its own and for so many seconds, and price its run.

    workers: instead of cluster.train_workers. use_shards: whether batches are those of the shards that are here; what
    lies in a store is not fetched for this.
    Raises ParamsError for numbers that make no sense.
    """
    workers = params.cluster.max_processes if workers is None else workers
    given = {"seconds": seconds, "gigabits-per-second": gigabits_per_second, "price-per-hour": price_per_hour}
    for name, value in given.items():
        if value is not None and value <= 0:
            raise ParamsError(f"--{name} must be more than 0, got {value:g}")
    taken = footprints(params)
    probes: list[Probe] = []
    prices = []
    with Bar("probe", sum(len(each.phases) for each in taken), "phases") as bar:
        done = 0
        for each in taken:
            job = probe_job(params, each, workers, use_shards=use_shards and not params.store.url, seconds=seconds)
            try:
                probes.append(_probed(job, each, bar, done))
            except ProbeError as error:
                prices.append(GeneratorPrice(name=each.generator, problem=str(error)))
            else:
                prices.append(
                    price_of(
                        probes[-1],
                        each.phases,
                        workers=workers,
                        together=1 if probes[-1].is_gpu or "RAY_ADDRESS" in os.environ else workers,
                        loader_workers=params.cluster.loader_workers,
                        gigabits_per_second=gigabits_per_second,
                        price_per_hour=price_per_hour,
                    )
                )
            done += len(each.phases)
            bar.at(done)
    return Price(
        device=probes[0].device if probes else "nothing",
        is_gpu=bool(probes) and probes[0].is_gpu,
        workers=workers,
        threads=params.cluster.threads,
        loader_workers=params.cluster.loader_workers,
        gigabits_per_second=gigabits_per_second,
        price_per_hour=price_per_hour,
        generators=tuple(prices),
        disks=tuple(_disks(params, taken)),
        hours=_sum(each.hours for each in prices),
        worker_hours=_sum(each.worker_hours for each in prices),
        cost=_sum(each.cost for each in prices),
    )


def probe_job(
    params: Params,
    taken: Footprint,
    workers: int,
    *,
    use_shards: bool,
    seconds: float | None,
    ranks: tuple[int, ...] = (0,),
) -> ProbeJob:
    """One worker's probe, with batches of the shards if all columns it needs are here."""
    here = shard_folders(params)
    columns = ("image", *taken.columns)
    is_here = use_shards and all(column in here for column in columns)
    return ProbeJob(
        generator=taken.generator,
        config=params.generators[taken.generator],
        train=params.train,
        seed=params.seed,
        image_size=_side(params, here.get("image")),
        folders={column: str(here[column]) for column in columns} if is_here else {},
        store=params.store,
        world_size=workers,
        ranks=ranks,
        threads=params.cluster.threads,
        seconds=seconds,
    )


def _side(params: Params, images: Path | None) -> int:
    """Of made-up images: as they are cropped, stored, or would be stored."""
    stored = read_manifest(images).parameters.get("size") if images else None
    return params.train.samples.crop or stored or params.ingest.size


def _probed(job: ProbeJob, taken: Footprint, bar: Bar, done: int) -> Probe:
    if problem := sharing_problem(taken.batch_size, job.world_size, job.train.accumulate):
        raise ProbeError(problem)
    names = [phase.name for phase in taken.phases]
    return run_apart(probe, job, lambda phase: bar.at(done + names.index(phase), f"{taken.generator}/{phase}"))


def price_of(
    probed: Probe,
    footprints: Sequence[PhaseFootprint],
    *,
    workers: int,
    together: int,
    loader_workers: int,
    gigabits_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> GeneratorPrice:
    """The arithmetic alone. together: how many workers share the memory of one machine, or of one GPU."""
    reading = spread(probed.reading_seconds) if probed.reading_seconds else None
    if reading and loader_workers:
        reading = reading * (1 / loader_workers)
    phases = tuple(
        _phase_price(phase, each.gradient_bytes, reading, overlaps=loader_workers > 0)
        for phase, each in zip(probed.phases, footprints, strict=True)
    )
    hours = _sum(phase.hours for phase in phases)
    worker_hours = hours * workers if hours else None
    exchanged = sum(phase.steps * phase.gradient_bytes for phase in phases) * 2 * (workers - 1) / workers
    memory, fits = _memory_verdict(probed, together)
    return GeneratorPrice(
        name=probed.generator,
        images_per_worker=probed.batch_size,
        pixels=(probed.width, probed.height),
        phases=phases,
        reading_seconds=reading,
        hours=hours,
        worker_hours=worker_hours,
        cost=worker_hours * price_per_hour if worker_hours and price_per_hour else None,
        exchange_hours=8e-9 * exchanged / gigabits_per_second / 3600 if gigabits_per_second else None,
        peak_bytes=probed.peak_bytes,
        memory=memory,
        fits=fits,
    )


def _phase_price(phase: PhaseProbe, gradient_bytes: int, reading: Range | None, *, overlaps: bool) -> PhasePrice:
    compute = _sum(spread(kind.seconds) * kind.steps for kind in phase.kinds) if phase.kinds else None
    seconds = compute
    if compute and reading:
        data = reading * phase.steps
        # Loader workers read while the step computes; without them the training process does one after the other.
        seconds = max(compute, data, key=lambda each: each.middle) if overlaps else compute + data
    return PhasePrice(
        name=phase.name,
        steps=phase.steps,
        measured_steps=sum(len(kind.seconds) for kind in phase.kinds),
        is_warm=phase.is_warm,
        compute_seconds=compute,
        hours=seconds * (1 / 3600) if seconds else None,
        gradient_bytes=gradient_bytes,
    )


def spread(values: Sequence[float]) -> Range:
    """Median and quartiles; of fewer than four values the smallest and the largest."""
    if len(values) < 4:
        return Range(low=min(values), middle=statistics.median(values), high=max(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Range(low=low, middle=middle, high=high)


def _sum(ranges: Iterable[Range | None]) -> Range | None:
    """None if one of them is not known, or if there are none."""
    known = list(ranges)
    return None if not known or None in known else sum(known, NOTHING)


def _memory_verdict(probed: Probe, together: int) -> tuple[str, bool]:
    needed, there = together * probed.needed_bytes, probed.memory_bytes
    of = f"{as_bytes(needed)} of {as_bytes(there)}"
    workers = f"{together} workers need " if together > 1 else ""
    if needed > there:
        remedy = "lower batch_size or take more workers" if together == 1 else "RAY_ADDRESS may name a cluster"
        return f"does not fit: {workers}{of}; {remedy}", False
    return f"{'tight' if needed > _TIGHT * there else 'fits'}: {workers}{of}", True


def _disks(params: Params, taken: Sequence[Footprint]) -> list[DiskPrice]:
    """Per disk: live checkpoints of one generator at a time; weights of all, in models/, DVC's cache and the tracked
    runs; the cache's copy of the shards that are here."""
    storage, checkout = params.cluster.storage_folder, Path.cwd()
    while not storage.exists():
        storage = storage.parent
    number = checkpoints_at_once(are_copied=params.cluster.checkpoints is not None)
    needs = [
        (storage, number * max(each.checkpoint_bytes for each in taken)),
        (checkout, 3 * sum(each.weights_bytes for each in taken) + (0 if params.store.url else plan.disk_bytes())),
    ]
    by_disk: dict[int, list[tuple[Path, int]]] = {}
    for path, needed in needs:
        by_disk.setdefault(path.stat().st_dev, []).append((path, needed))
    disks = []
    for parts in by_disk.values():
        needed, free = sum(part[1] for part in parts), shutil.disk_usage(parts[0][0]).free
        path = " and ".join(dict.fromkeys(str(part[0]) for part in parts))
        disks.append(DiskPrice(path=path, needed_bytes=needed, free_bytes=free, fits=needed <= free))
    return disks


def render(planned: Planned, price: Price, *, as_json: bool) -> str:
    """Plan and price, for people or as JSON."""
    if as_json:
        return json.dumps(asdict(planned) | {"price": asdict(price)}, indent=2)
    threads = "" if price.is_gpu else f" with {price.threads} of its cores"
    lines = [
        *plan.lines(planned),
        "",
        f"price    as {price.workers} workers, each as fast as this {price.device}{threads}:",
        *_table(price),
        *(f"memory   {each.name}: {each.memory}" for each in price.generators if not each.problem),
        *(f"problem  {each.name}: {each.problem}" for each in price.generators if each.problem),
        *(
            f"missing  {each.name}: no time was left for {', '.join(each.not_probed)}, so there is no total; "
            "raise --seconds"
            for each in price.generators
            if each.not_probed
        ),
        *(
            f"free     {disk.path}: {'enough' if disk.fits else 'NOT ENOUGH'}: at most {as_bytes(disk.needed_bytes)} "
            f"of {as_bytes(disk.free_bytes)} for weights, checkpoints and DVC's copy of the shards"
            for disk in price.disks
        ),
        *_assumed(price),
    ]
    return "\n".join(lines)


def _table(price: Price) -> list[str]:
    unit = "GPU-hours" if price.is_gpu else "worker-hours"
    head = ("", "per worker", "steps", "seconds/step", "measured", "reading/step", "gradients/step", "hours", unit)
    rows: list[Sequence[str]] = [(*head, *(["cost"] if price.price_per_hour else []))]
    blanks = [""] * (len(rows[0]) - len(head))
    for each in price.generators:
        if each.problem:
            continue
        width, height = each.pixels
        shape = f"{each.images_per_worker} of {width}x{height}"
        for phase in each.phases:
            rows.append(
                (
                    f"{each.name}/{phase.name}",
                    shape,
                    f"{phase.steps:,}",
                    _range(phase.compute_seconds and phase.compute_seconds * (1 / phase.steps)),
                    f"{phase.measured_steps}{'' if phase.is_warm or not phase.measured_steps else ' (cold)'}",
                    _range(each.reading_seconds),
                    as_bytes(phase.gradient_bytes) if price.workers > 1 else "-",
                    _range(phase.hours),
                    _range(phase.hours and phase.hours * price.workers),
                    *blanks,
                )
            )
        if len(each.phases) > 1 or blanks:
            totals = (_range(each.hours), _range(each.worker_hours), *([_range(each.cost)] if blanks else []))
            rows.append((each.name, *[""] * 6, *totals))
    if len(price.generators) > 1:
        totals = (_range(price.hours), _range(price.worker_hours), *([_range(price.cost)] if blanks else []))
        rows.append(("all", *[""] * 6, *totals))
    return aligned(rows)


def _range(value: Range | None) -> str:
    if value is None:
        return "-"
    low, middle, high = (f"{number:.2g}" for number in (value.low, value.middle, value.high))
    return middle if low == high else f"{middle} ({low}-{high})"


def _assumed(price: Price) -> list[str]:
    how = "while a step computes" if price.loader_workers else "before each step, since cluster.loader_workers is 0"
    known = [each for each in price.generators if each.reading_seconds]
    reading = f"reading counts as done {how}" if known else "reading is not counted: no shards were read"
    lines = [
        f"assumed  ranges are the middle half of the steps measured; {reading}; checkpoints and samples are not counted"
    ]
    if price.workers > 1:
        lines.append("         every worker is as fast as this one, and exchanging gradients is not in the hours")
        lines += [
            f"exchange {each.name}: up to {each.exchange_hours:.2g} h more at {price.gigabits_per_second:g} Gbit/s per "
            "worker, less what overlaps with computing"
            for each in price.generators
            if each.exchange_hours is not None
        ]
    return lines
