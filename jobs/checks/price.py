"""Compute the price of a training from a probe and a footprint: hours, memory, cost. Measures nothing itself."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.checks.footprint import PhaseFootprint
from jobs.checks.probe import PhaseProbe, Probe
from jobs.checks.units import format_bytes

_TIGHT = 0.9  # share of the memory above which other processes of the machine may find too little


@dataclass(frozen=True, kw_only=True)
class Range:
    """A median with the quartiles around it; of fewer than four values, with the smallest and the largest."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, middle=self.middle + other.middle, high=self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)


_ZERO = Range(low=0.0, middle=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True)
class PhasePrice:
    """One phase.

    measured_steps: number of steps that were measured; 0 if the phase was not probed.
    is_warm: whether a first, slower step was left out.
    compute_seconds: of all steps together; None if the phase was not probed.
    hours: the same with reading.
    gradient_bytes: gradients that the workers sum per step.
    """

    name: str
    steps: int
    measured_steps: int
    is_warm: bool
    compute_seconds: Range | None
    hours: Range | None
    gradient_bytes: int


@dataclass(frozen=True, kw_only=True)
class GeneratorPrice:
    """One generator.

    problem: why it cannot be trained so, or "". Every other field then has its default.
    workers: number of training processes.
    pixels: width and height of the probed images.
    reading_seconds: per step and worker; None if not measured.
    hours, worker_hours, cost: None unless every phase was probed.
    exchange_hours: time to exchange all gradients at the given bandwidth; None if no bandwidth was given.
    peak_bytes: the most memory that the probe used.
    memory: the verdict on memory, in words.
    fits: whether the memory suffices.
    """

    name: str
    problem: str = ""
    workers: int = 1
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
        """Names of the phases that were not probed."""
        return tuple(phase.name for phase in self.phases if phase.hours is None)


def price_generator(
    probe: Probe,
    footprints: Sequence[PhaseFootprint],
    *,
    workers: int,
    workers_per_device: int,
    loader_workers: int,
    gigabits_per_second: float | None = None,
    price_per_hour: float | None = None,
) -> GeneratorPrice:
    """Compute the price of the training of one generator.

    footprints: of the probed phases, in the same order.
    workers: number of training processes.
    workers_per_device: how many of them share the memory of one machine, or of one GPU.
    loader_workers: processes that read for each of them; 0 reads in the training process.
    gigabits_per_second: bandwidth of each worker.
    price_per_hour: of one worker, in any currency.
    """
    reading = spread(probe.reading_seconds) if probe.reading_seconds else None
    if loader_workers:
        reading = scale(reading, 1 / loader_workers)
    phases = tuple(
        _price_phase(phase, footprint.gradient_bytes, reading, overlaps=loader_workers > 0)
        for phase, footprint in zip(probe.phases, footprints, strict=True)
    )
    hours = add_up(phase.hours for phase in phases)
    worker_hours = scale(hours, workers)
    memory, fits = _judge_memory(probe, workers_per_device)
    return GeneratorPrice(
        name=probe.generator,
        workers=workers,
        images_per_worker=probe.batch_size,
        pixels=(probe.width, probe.height),
        phases=phases,
        reading_seconds=reading,
        hours=hours,
        worker_hours=worker_hours,
        cost=scale(worker_hours, price_per_hour),
        exchange_hours=_exchange_hours(phases, workers, gigabits_per_second),
        peak_bytes=probe.peak_bytes,
        memory=memory,
        fits=fits,
    )


def spread(values: Sequence[float]) -> Range:
    """Return the median and the quartiles; of fewer than four values, the smallest and the largest."""
    if len(values) < 4:
        return Range(low=min(values), middle=statistics.median(values), high=max(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Range(low=low, middle=middle, high=high)


def scale(value: Range | None, factor: float | None) -> Range | None:
    """Return the product, or None if one of the two is not known."""
    return None if value is None or factor is None else value * factor


def add_up(ranges: Iterable[Range | None]) -> Range | None:
    """Return the sum, or None if one of the ranges is not known or there are none."""
    known = list(ranges)
    return None if not known or None in known else sum(known, _ZERO)


def _price_phase(phase: PhaseProbe, gradient_bytes: int, reading: Range | None, *, overlaps: bool) -> PhasePrice:
    compute = add_up(spread(kind.seconds) * kind.steps for kind in phase.kinds)
    return PhasePrice(
        name=phase.name,
        steps=phase.steps,
        measured_steps=sum(len(kind.seconds) for kind in phase.kinds),
        is_warm=phase.is_warm,
        compute_seconds=compute,
        hours=scale(_with_reading(compute, scale(reading, phase.steps), overlaps=overlaps), 1 / 3600),
        gradient_bytes=gradient_bytes,
    )


def _with_reading(compute: Range | None, reading: Range | None, *, overlaps: bool) -> Range | None:
    """Return the seconds of a phase. overlaps: whether other processes read while a step computes."""
    if compute is None or reading is None:
        return compute
    if overlaps:
        return max(compute, reading, key=lambda seconds: seconds.middle)
    return compute + reading


def _exchange_hours(phases: Sequence[PhasePrice], workers: int, gigabits_per_second: float | None) -> float | None:
    if gigabits_per_second is None:
        return None
    # In a ring each of n workers sends every gradient 2 (n - 1) / n times: once to sum it, once to share the sum.
    sent_bytes = sum(phase.steps * phase.gradient_bytes for phase in phases) * 2 * (workers - 1) / workers
    return 8e-9 * sent_bytes / gigabits_per_second / 3600


def _judge_memory(probe: Probe, workers_per_device: int) -> tuple[str, bool]:
    """Return the verdict in words, and whether the memory suffices."""
    needed_bytes = workers_per_device * probe.needed_bytes
    share = f"{format_bytes(needed_bytes)} of {format_bytes(probe.memory_bytes)}"
    if workers_per_device > 1:
        share = f"{workers_per_device} workers need {share}"
    if needed_bytes > probe.memory_bytes:
        one = workers_per_device == 1
        remedy = "lower batch_size or take more workers" if one else "RAY_ADDRESS may name a cluster"
        return f"does not fit: {share}; {remedy}", False
    is_tight = needed_bytes > _TIGHT * probe.memory_bytes
    return f"{'tight' if is_tight else 'fits'}: {share}", True
