"""Price a training before it starts: probe every generator on this device for a few steps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.stream.plan import sharing_problem
from jobs.checks.apart import ProbeError, run_apart
from jobs.checks.footprint import Footprint, checkpoints_at_once, footprints
from jobs.checks.price import GeneratorPrice, PhasePrice, Range, add_up, price_generator, scale
from jobs.checks.probe import Probe, ProbeJob, probe
from jobs.checks.units import format_bytes
from pipeline.params import Params, ParamsError
from pipeline.planning.plan import Planned, render_lines
from pipeline.planning.probing import probe_job
from pipeline.planning.shards import all_bytes
from pipeline.planning.workers import workers_of
from pipeline.progress import Bar
from pipeline.tables import align_right


@dataclass(frozen=True, kw_only=True)
class DiskPrice:
    """The bytes that are still to be written to one disk, at most, and the bytes that are free there."""

    path: str
    needed_bytes: int
    free_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Price:
    """The whole price.

    device: the device that was probed; "nothing" if no probe ran.
    workers: the most of a generator.
    hours, worker_hours, cost: of all generators one after another; None unless all are known.
    """

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
        """Return whether everything was priced and fits."""
        fits = [item.fits for item in (*self.generators, *self.disks)]
        return self.hours is not None and all(fits)


def run(
    params: Params,
    *,
    workers: int | None = None,
    use_shards: bool = True,
    seconds: float = 20.0,
    gigabits_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> Price:
    """Probe every generator on this device, each in a process of its own, and price its training.

    workers: number of training processes; None takes those that would train each generator.
    use_shards: whether probes read the shards that are here. Shards in a store are not fetched for this.
    seconds: how long to measure each generator.
    gigabits_per_second: bandwidth of each worker, to price the exchange of gradients.
    price_per_hour: of one worker, in any currency.
    Raises ParamsError for numbers that are not positive.
    """
    given = {"seconds": seconds, "gigabits-per-second": gigabits_per_second, "price-per-hour": price_per_hour}
    for name, value in given.items():
        if value is not None and value <= 0:
            raise ParamsError(f"--{name} must be more than 0, got {value:g}")
    counted = footprints(params.generators, params.train)
    numbers = [workers_of(params, footprint, workers) for footprint in counted]
    use_shards = use_shards and not params.store.url
    jobs = [
        probe_job(params, footprint, number, use_shards=use_shards, seconds=seconds)
        for footprint, number in zip(counted, numbers, strict=True)
    ]
    probes = list(_probe_all(jobs, counted))
    prices = [
        _price(result, footprint, params, number, gigabits_per_second, price_per_hour)
        for result, footprint, number in zip(probes, counted, numbers, strict=True)
    ]
    first = next((result for result in probes if isinstance(result, Probe)), None)
    return Price(
        device=first.device if first else "nothing",
        is_gpu=first is not None and first.is_gpu,
        workers=max(numbers),
        threads=params.cluster.threads,
        loader_workers=params.cluster.loader_workers,
        gigabits_per_second=gigabits_per_second,
        price_per_hour=price_per_hour,
        generators=tuple(prices),
        disks=tuple(_price_disks(params, counted)),
        hours=add_up(price.hours for price in prices),
        worker_hours=add_up(price.worker_hours for price in prices),
        cost=add_up(price.cost for price in prices),
    )


def _probe_all(jobs: Sequence[ProbeJob], counted: Sequence[Footprint]) -> Iterator[Probe | ProbeError]:
    """Yield the probe of each generator, or the error that says why it cannot be trained."""
    with Bar("probe", sum(len(footprint.phases) for footprint in counted), "phases") as bar:
        done = 0
        for job, footprint in zip(jobs, counted, strict=True):
            try:
                yield _probe(job, footprint, bar, done)
            except ProbeError as error:
                yield error
            done += len(footprint.phases)
            bar.at(done)


def _probe(job: ProbeJob, footprint: Footprint, bar: Bar, done: int) -> Probe:
    """Probe one generator. done: number of phases before its own, for the bar."""
    if problem := sharing_problem(footprint.batch_size, job.world_size, job.train.accumulate):
        raise ProbeError(problem)
    names = [phase.name for phase in footprint.phases]
    return run_apart(probe, job, lambda phase: bar.at(done + names.index(phase), f"{footprint.generator}/{phase}"))


def _price(
    result: Probe | ProbeError,
    footprint: Footprint,
    params: Params,
    workers: int,
    gigabits_per_second: float | None,
    price_per_hour: float | None,
) -> GeneratorPrice:
    if isinstance(result, ProbeError):
        return GeneratorPrice(name=footprint.generator, problem=str(result))
    has_own_device = result.is_gpu or "RAY_ADDRESS" in os.environ  # else all workers share this machine's memory
    return price_generator(
        result,
        footprint.phases,
        workers=workers,
        workers_per_device=1 if has_own_device else workers,
        loader_workers=params.cluster.loader_workers,
        gigabits_per_second=gigabits_per_second,
        price_per_hour=price_per_hour,
    )


def _price_disks(params: Params, counted: Sequence[Footprint]) -> Iterator[DiskPrice]:
    """Yield the price of each disk.

    The storage holds the live checkpoints of one generator at a time. The checkout holds the weights of all generators
    three times (models/, DVC's cache, the tracked runs) and the cache's copy of the shards that are here.
    """
    storage, checkout = params.cluster.storage_folder, Path.cwd()
    while not storage.exists():
        storage = storage.parent
    checkpoints = checkpoints_at_once(are_copied=params.cluster.checkpoints is not None)
    shards_bytes = 0 if params.store.url else all_bytes()
    needs = [
        (storage, checkpoints * max(footprint.checkpoint_bytes for footprint in counted)),
        (checkout, 3 * sum(footprint.weights_bytes for footprint in counted) + shards_bytes),
    ]
    by_disk: dict[int, list[tuple[Path, int]]] = {}
    for path, size in needs:
        by_disk.setdefault(path.stat().st_dev, []).append((path, size))
    for needs_of_disk in by_disk.values():
        needed, free = sum(size for _, size in needs_of_disk), shutil.disk_usage(needs_of_disk[0][0]).free
        path = " and ".join(dict.fromkeys(str(path) for path, _ in needs_of_disk))
        yield DiskPrice(path=path, needed_bytes=needed, free_bytes=free, fits=needed <= free)


def render(planned: Planned, price: Price, *, as_json: bool) -> str:
    """Return plan and price as text or as JSON."""
    if as_json:
        return json.dumps(asdict(planned) | {"price": asdict(price)}, indent=2)
    threads = "" if price.is_gpu else f" with {price.threads} of its cores"
    lines = [
        *render_lines(planned),
        "",
        f"price    as {price.workers} workers, each as fast as this {price.device}{threads}:",
        *_render_table(price),
        *_render_verdicts(price),
        *_render_assumptions(price),
        *_render_exchange(price),
    ]
    return "\n".join(lines)


def _render_verdicts(price: Price) -> Iterator[str]:
    for generator in price.generators:
        if not generator.problem:
            yield f"memory   {generator.name}: {generator.memory}"
    for generator in price.generators:
        if generator.problem:
            yield f"problem  {generator.name}: {generator.problem}"
    for generator in price.generators:
        if generator.not_probed:
            phases = ", ".join(generator.not_probed)
            yield f"missing  {generator.name}: no time was left for {phases}, so there is no total; raise --seconds"
    for disk in price.disks:
        share = f"{format_bytes(disk.needed_bytes)} of {format_bytes(disk.free_bytes)}"
        verdict = "enough" if disk.fits else "NOT ENOUGH"
        yield (
            f"free     {disk.path}: {verdict}: at most {share} for weights, checkpoints and DVC's copy of the shards"
        )


def _render_table(price: Price) -> list[str]:
    unit = "GPU-hours" if price.is_gpu else "worker-hours"
    has_cost = price.price_per_hour is not None
    head = ["", "per worker", "steps", "seconds/step", "measured", "reading/step", "gradients/step", "hours", unit]
    rows = [[*head, "cost"] if has_cost else head]
    for generator in price.generators:
        if generator.problem:
            continue
        rows += [_phase_row(price, generator, phase) for phase in generator.phases]
        if len(generator.phases) > 1 or has_cost:
            rows.append(_total_row(generator.name, generator, has_cost=has_cost))
    if len(price.generators) > 1:
        rows.append(_total_row("all", price, has_cost=has_cost))
    return align_right(rows)


def _phase_row(price: Price, generator: GeneratorPrice, phase: PhasePrice) -> list[str]:
    width, height = generator.pixels
    is_cold = phase.measured_steps and not phase.is_warm
    row = [
        f"{generator.name}/{phase.name}",
        f"{generator.images_per_worker} of {width}x{height}, {generator.workers} at once"
        if generator.workers != price.workers
        else f"{generator.images_per_worker} of {width}x{height}",
        f"{phase.steps:,}",
        _render_range(scale(phase.compute_seconds, 1 / phase.steps)),
        f"{phase.measured_steps}{' (cold)' if is_cold else ''}",
        _render_range(generator.reading_seconds),
        format_bytes(phase.gradient_bytes) if generator.workers > 1 else "-",
        _render_range(phase.hours),
        _render_range(scale(phase.hours, generator.workers)),
    ]
    return [*row, ""] if price.price_per_hour is not None else row  # only totals have a cost


def _total_row(name: str, total: GeneratorPrice | Price, *, has_cost: bool) -> list[str]:
    row = [name, *[""] * 6, _render_range(total.hours), _render_range(total.worker_hours)]
    return [*row, _render_range(total.cost)] if has_cost else row


def _render_range(value: Range | None) -> str:
    if value is None:
        return "-"
    low, middle, high = (f"{number:.2g}" for number in (value.low, value.middle, value.high))
    return middle if low == high else f"{middle} ({low}-{high})"


def _render_assumptions(price: Price) -> Iterator[str]:
    if any(generator.reading_seconds for generator in price.generators):
        how = "while a step computes" if price.loader_workers else "before each step, since cluster.loader_workers is 0"
        reading = f"reading counts as done {how}"
    else:
        reading = "reading is not counted: no shards were read"
    ranges = "ranges are the middle half of the steps measured"
    yield f"assumed  {ranges}; {reading}; checkpoints and samples are not counted"
    if price.workers > 1:
        yield "         every worker is as fast as this one, and exchanging gradients is not in the hours"


def _render_exchange(price: Price) -> Iterator[str]:
    for generator in price.generators:
        if generator.workers > 1 and generator.exchange_hours is not None:
            yield (
                f"exchange {generator.name}: up to {generator.exchange_hours:.2g} h more at "
                f"{price.gigabits_per_second:g} Gbit/s per worker, less what overlaps with computing"
            )
