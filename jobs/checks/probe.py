"""A few real steps of a generator, in a process of its own: seconds of every kind of step, peak memory, reading.

The process trains as one of `world_size` does, with its share of the batch and without the others: what they would
exchange is not measured.
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
from jobs.training.determinism import deterministic
from jobs.training.samples import TrainingSamples
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep
from masks.masks import open_masks

_MAX_STEPS = 20  # of a kind: more would not change a median by much
_MAX_READS = 5


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """One generator to be probed as one worker of `world_size`.

    folders: column -> absolute folder of shards; empty for made-up batches of image_size x image_size.
    ranks: whose first batches are read. seconds: how long to measure; None takes one step of every kind for each rank.
    """

    generator: str
    config: Any
    train: TrainConfig
    seed: int
    image_size: int
    folders: Mapping[str, str] = field(default_factory=dict)
    store: StoreConfig = field(default_factory=StoreConfig)
    world_size: int = 1
    ranks: tuple[int, ...] = (0,)
    threads: int = 1
    seconds: float | None = 20.0


@dataclass(frozen=True, kw_only=True)
class KindProbe:
    """seconds: of each measured step, the conversion of its batch included. steps: how many the phase has of them."""

    updates: tuple[str, ...]
    steps: int
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PhaseProbe:
    """kinds: empty where there was no time for this phase. is_warm: whether a first step, which allocates and tunes,
    was left out."""

    name: str
    steps: int
    kinds: tuple[KindProbe, ...] = ()
    is_warm: bool = False


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured. batch_size, height, width: of one worker's batch. reading_seconds: of each batch that was read
    and decoded, by one process; empty for made-up batches.

    peak_bytes: on a GPU of tensors, on a CPU of the process. needed_bytes: what the device must have for it: on a GPU
    with the allocator's reserve and the context. memory_bytes: what the device has. not_repeatable: operations that
    have no form there that repeats to the bit; only looked for under `deterministic`.
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
    """Measure in this process, whose peak memory then is the answer's; `say` hears what is done.

    A phase that is begun is gone through once, a step of every kind; one for which no time is left is not probed.
    Raises ProbeError for a term that is not finite, and whatever building, reading and training raise.
    """
    torch.set_num_threads(job.threads)
    with deterministic(job.train.deterministic) as not_repeatable:
        probed = _Probing(job).run(say)
    return replace(probed, not_repeatable=tuple(sorted(not_repeatable)))


class _Probing:
    """One worker's share of a training."""

    def __init__(self, job: ProbeJob) -> None:
        self.job = job
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe = build_recipe(job.generator, job.config, job.seed)
        for network in self.recipe.networks.values():
            network.to(self.device, memory_format=torch.channels_last if job.train.channels_last else None)
        self.step = TrainingStep(self.recipe, job.train, self.device)

    def run(self, say: Say) -> Probe:
        batches, reading_seconds = self._read() if self.job.folders else ([self._made_up()], [])
        phases = [phase for phase in self.recipe.phases if phase.steps]
        begin = time.perf_counter()
        probed = []
        for index, phase in enumerate(phases):
            say(phase.name)
            spent = time.perf_counter() - begin
            limit = 0.0 if self.job.seconds is None else self.job.seconds
            if index and limit and spent > limit:
                probed.append(PhaseProbe(name=phase.name, steps=phase.steps))
            else:
                until = time.perf_counter() + (limit - spent) / (len(phases) - index)
                probed.append(self._phase(phase, batches, until))
        _, height, width, _ = batches[0].image.shape
        peak_bytes, needed_bytes, memory_bytes = _memory(self.device)
        return Probe(
            generator=self.job.generator,
            device=device_name(self.device),
            is_gpu=self.device.type == "cuda",
            threads=self.job.threads,
            batch_size=len(batches[0].image),
            height=height,
            width=width,
            phases=tuple(probed),
            reading_seconds=tuple(reading_seconds),
            peak_bytes=peak_bytes,
            needed_bytes=needed_bytes,
            memory_bytes=memory_bytes,
        )

    def _phase(self, phase: Phase, batches: list[ByteBatch], until: float) -> PhaseProbe:
        """Steps of one phase until the time is over, of all kinds equally many."""
        self.step.start(phase)
        kinds = step_kinds(phase)
        taken = [[self._step(phase, kind, batch) for batch in batches][:1] for kind in kinds]  # every rank's batch once
        while time.perf_counter() < until and len(taken[0]) <= _MAX_STEPS:
            for seconds, kind in zip(taken, kinds, strict=True):
                seconds.append(self._step(phase, kind, batches[0]))
        is_warm = len(taken[0]) > 1
        return PhaseProbe(
            name=phase.name,
            steps=phase.steps,
            kinds=tuple(
                KindProbe(
                    updates=tuple("+".join(update.networks) for update in kind.updates),
                    steps=kind.steps,
                    seconds=tuple(seconds[is_warm:]),
                )
                for seconds, kind in zip(taken, kinds, strict=True)
            ),
            is_warm=is_warm,
        )

    def _step(self, phase: Phase, kind: StepKind, batch: ByteBatch) -> float:
        phase.set_learning_rates(self.recipe.optimizers, kind.first)
        terms: dict[str, Tensor] = {}

        def step() -> None:
            there = batch.to(self.device)
            terms.update(self.step(kind.first, there.channels_last() if self.job.train.channels_last else there))

        seconds = timed(step, self.device)
        for name, value in terms.items():
            if not value.isfinite():
                raise ProbeError(f"{phase.name}/{name} is {value.item()} in the first steps; lower a learning rate")
        return seconds

    def _read(self) -> tuple[list[ByteBatch], list[float]]:
        """The first batch of every rank asked for, and how long some batches took to read after a first one."""
        samples = TrainingSamples(
            {name: Path(self.job.folders[name]) for name in ("image", *self.recipe.columns)},
            self.job.train.samples,
            self.job.seed,
            self.job.store,
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

    def _made_up(self) -> ByteBatch:
        """Noise with real holes."""
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
    """Seconds that a call takes, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def device_name(device: torch.device) -> str:
    """Such as "NVIDIA H100" or "x86_64 CPU, 2 cores"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def peak_bytes(device: torch.device) -> int:
    """The most that tensors took on a GPU since its statistics were reset, or this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss on Linux: a process inherits there what the one that started it had.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def _memory(device: torch.device) -> tuple[int, int, int]:
    """(peak, needed, there) in bytes, as a Probe has them."""
    peak = peak_bytes(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        beside = total - free - torch.cuda.memory_reserved(device)  # context, libraries, other processes
        return peak, torch.cuda.max_memory_reserved(device) + beside, total
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    total = psutil.virtual_memory().total
    return peak, peak, total if allowed == "max" else min(total, int(allowed))
