"""Measure a few real steps of a generator: seconds of every kind of step, peak memory, time to read.

The process trains as one of `world_size` does, with its share of the batch and without the others. The exchange between
workers is not measured.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from files.objects import StoreConfig
from files.seeds import derive_seed
from jobs.checks.apart import ProbeError, Say
from jobs.checks.footprint import StepKind, step_kinds
from jobs.generators.build import build_recipe
from jobs.recipe.contract import Phase
from jobs.training.byte_batches import ByteBatch
from jobs.training.global_batch import with_global_batch
from jobs.training.numerics import numerics
from jobs.training.samples import TrainingSamples
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep
from masks.masks import open_masks

_MAX_STEPS = 20  # of a kind, after the first; more would hardly change the median
_MAX_READS = 5


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """One generator, to be probed as one worker of `world_size`.

    config: the generator's hyperparameters.
    image_size: side of made-up images, in pixels.
    folders: column -> absolute folder of shards; empty makes batches up.
    digests: column -> digest that its manifest must have.
    ranks: the workers whose first batches are taken.
    threads: CPU threads of the process.
    seconds: how long to measure; None takes one step of every kind with the batch of each rank.
    """

    generator: str
    config: Any
    train: TrainConfig
    seed: int
    image_size: int
    folders: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    store: StoreConfig = field(default_factory=StoreConfig)
    world_size: int = 1
    ranks: tuple[int, ...] = (0,)
    threads: int = 1
    seconds: float | None = 20.0


@dataclass(frozen=True, kw_only=True)
class KindProbe:
    """The measured steps of one kind.

    updates: the updates that are due, each as its networks joined by "+".
    steps: number of such steps in the phase.
    seconds: of each measured step, with the conversion of its batch.
    """

    updates: tuple[str, ...]
    steps: int
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PhaseProbe:
    """The measured steps of one phase.

    kinds: empty if there was no time for this phase.
    is_warm: whether the first step of each kind was left out. It allocates and tunes, and is slower.
    """

    name: str
    steps: int
    kinds: tuple[KindProbe, ...] = ()
    is_warm: bool = False


@dataclass(frozen=True, kw_only=True)
class Probe:
    """All measurements of one generator.

    device: name of the device, such as "x86_64 CPU, 2 cores".
    batch_size, height, width: of one worker's batch, in images and pixels.
    reading_seconds: of each batch that one process read and decoded; empty for made-up batches.
    peak_bytes: the most that tensors took on a GPU, or the process on a CPU.
    needed_bytes: memory that the device must have; on a GPU with the allocator's reserve and the context.
    memory_bytes: memory that the device has.
    not_repeatable: operations without a form that repeats to the bit; only looked for under `deterministic`.
    """

    generator: str
    device: str
    is_gpu: bool
    threads: int
    batch_size: int
    height: int
    width: int
    phases: tuple[PhaseProbe, ...]
    reading_seconds: tuple[float, ...]
    peak_bytes: int
    needed_bytes: int
    memory_bytes: int
    not_repeatable: tuple[str, ...] = ()


def probe(job: ProbeJob, say: Say = lambda text: None) -> Probe:
    """Measure in this process. Run it in a process of its own, since peak memory is that of the whole process.

    Every phase that is begun takes at least one step of every kind. A phase for which no time is left is not probed.
    say: called with the name of each phase that begins.
    Raises ProbeError for a term that is not finite, and every error of building, reading and training.
    """
    torch.set_num_threads(job.threads)
    with numerics(job.train) as not_repeatable:
        result = _Probing(job).run(say)
    return replace(result, not_repeatable=tuple(sorted(not_repeatable)))


class _Probing:
    """One worker's share of a training."""

    def __init__(self, job: ProbeJob) -> None:
        self.job = job
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe = with_global_batch(build_recipe(job.generator, job.config, job.seed), job.train)
        for network in self.recipe.networks.values():
            network.to(self.device, memory_format=torch.channels_last if job.train.channels_last else None)
        self.step = TrainingStep(self.recipe, job.train, self.device)

    def run(self, say: Say) -> Probe:
        batches, reading_seconds = self._read() if self.job.folders else ([self._make_up()], [])
        phases = self._probe_phases(batches, say)
        count, height, width, _ = batches[0].image.shape
        peak_bytes, needed_bytes, memory_bytes = _memory(self.device)
        return Probe(
            generator=self.job.generator,
            device=device_name(self.device),
            is_gpu=self.device.type == "cuda",
            threads=self.job.threads,
            batch_size=count,
            height=height,
            width=width,
            phases=tuple(phases),
            reading_seconds=tuple(reading_seconds),
            peak_bytes=peak_bytes,
            needed_bytes=needed_bytes,
            memory_bytes=memory_bytes,
        )

    def _probe_phases(self, batches: list[ByteBatch], say: Say) -> list[PhaseProbe]:
        """Probe the phases in order. Each gets an equal share of the time that is left when it begins."""
        phases = [phase for phase in self.recipe.phases if phase.steps]
        limit = self.job.seconds or 0.0
        begin = time.perf_counter()
        probes = []
        for index, phase in enumerate(phases):
            say(phase.name)
            left = limit - (time.perf_counter() - begin)
            if index and limit and left < 0:
                probes.append(PhaseProbe(name=phase.name, steps=phase.steps))
            else:
                probes.append(self._probe_phase(phase, batches, left / (len(phases) - index)))
        return probes

    def _probe_phase(self, phase: Phase, batches: list[ByteBatch], limit: float) -> PhaseProbe:
        """Take steps of one phase for `limit` seconds, of all kinds equally many."""
        until = time.perf_counter() + limit
        self.step.start(phase)
        kinds = step_kinds(phase)
        seconds = [[self._time_first_step(phase, kind, batches)] for kind in kinds]
        while time.perf_counter() < until and len(seconds[0]) <= _MAX_STEPS:
            for kind, seconds_of_kind in zip(kinds, seconds, strict=True):
                seconds_of_kind.append(self._time_step(phase, kind, batches[0]))
        is_warm = len(seconds[0]) > 1
        if is_warm:
            seconds = [seconds_of_kind[1:] for seconds_of_kind in seconds]
        return PhaseProbe(
            name=phase.name,
            steps=phase.steps,
            kinds=tuple(
                KindProbe(
                    updates=tuple("+".join(update.networks) for update in kind.updates),
                    steps=kind.steps,
                    seconds=tuple(seconds_of_kind),
                )
                for kind, seconds_of_kind in zip(kinds, seconds, strict=True)
            ),
            is_warm=is_warm,
        )

    def _time_first_step(self, phase: Phase, kind: StepKind, batches: list[ByteBatch]) -> float:
        """Take a step with the batch of every rank, as any of them may fail. Returns the seconds of the first."""
        seconds = [self._time_step(phase, kind, batch) for batch in batches]
        return seconds[0]

    def _time_step(self, phase: Phase, kind: StepKind, batch: ByteBatch) -> float:
        """Return the seconds of one step, with the conversion of its batch.

        Raises ProbeError for a term that is not finite.
        """
        phase.set_learning_rates(self.recipe.optimizers, kind.first)
        terms: dict[str, Tensor] = {}

        def step() -> None:
            converted = batch.to(self.device)
            if self.job.train.channels_last:
                converted = converted.channels_last()
            terms.update(self.step(kind.first, converted))

        seconds = timed(step, self.device)
        for name, value in terms.items():
            if not value.isfinite():
                raise ProbeError(f"{phase.name}/{name} is {value.item()} in the first steps; lower a learning rate")
        return seconds

    def _read(self) -> tuple[list[ByteBatch], list[float]]:
        """Read the first batch of every rank, then time some further batches.

        Returns the batches and the seconds of each further one. The first batch opens files and is not timed.
        """
        samples = TrainingSamples(
            {name: Path(self.job.folders[name]) for name in ("image", *self.recipe.columns)},
            self.job.train.samples,
            self.job.seed,
            self.job.store,
            self.job.digests,
        )
        batches, seconds = [], []
        for rank in self.job.ranks:
            stream = self._stream(samples, rank)
            batches.append(next(stream))
        until = time.perf_counter() + (self.job.seconds or 0.0) / 10
        while len(seconds) < _MAX_READS and time.perf_counter() < until:
            start = time.perf_counter()
            next(stream)
            seconds.append(time.perf_counter() - start)
        return batches, seconds

    def _stream(self, samples: TrainingSamples, rank: int) -> Iterator[ByteBatch]:
        return iter(
            samples.loader(
                steps=range(1 + _MAX_READS),
                batch_size=self.recipe.batch_size,
                rank=rank,
                world_size=self.job.world_size,
                num_workers=0,
            )
        )

    def _make_up(self) -> ByteBatch:
        """Return a batch of noise, with masks as in training."""
        count, side = self.recipe.batch_size // self.job.world_size, self.job.image_size
        rng = np.random.default_rng(derive_seed(self.job.seed, "probe"))
        masks = open_masks(self.job.train.samples.masks)
        num_classes = getattr(self.job.config, "num_classes", 2)
        maps = {
            "edge": 255 * (rng.random((count, side, side)) < 0.1).astype(np.uint8),
            "semantics": rng.integers(0, num_classes, (count, side, side), dtype=np.uint8),
        }
        return ByteBatch(
            image=torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)),
            mask=torch.from_numpy(np.stack([masks.draw(side, side, seed) for seed in range(count)])),
            maps={name: torch.from_numpy(maps[name]) for name in self.recipe.columns},
            seed=torch.arange(count),
            key=tuple(f"made-up/{number}" for number in range(count)),
        )


def timed(function: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that a call takes, with the work that it leaves to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def device_name(device: torch.device) -> str:
    """Return a name such as "NVIDIA H100" or "x86_64 CPU, 2 cores"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes that tensors took on a GPU since its statistics were reset, or this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # On Linux ru_maxrss of a new process starts from the peak of the process that started it; VmHWM does not.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _memory(device: torch.device) -> tuple[int, int, int]:
    """Return `peak_bytes`, `needed_bytes` and `memory_bytes` of a Probe."""
    peak = peak_bytes(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)  # context, libraries, other processes
        return peak, torch.cuda.max_memory_reserved(device) + others, total
    return peak, peak, _machine_bytes()


def _machine_bytes() -> int:
    """Return the memory that this process may use: the machine's, or the limit of its container."""
    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return total if allowed == "max" else min(total, int(allowed))
