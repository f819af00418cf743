"""The one loop that trains every paper: it knows phases and updates, never a paper. Only this file imports accelerate.

Runs in one process or in each of a group; what a step computes depends on (seed, step, rank) and the weights alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from datasets.stream.plan import sharing_problem
from files.checkout import FOLDERS
from files.durable import file_digest
from files.errors import UserError
from files.locks import lock_file
from files.objects import StoreConfig
from files.seeds import derive_seed
from jobs.generators.build import build_recipe, inpaint
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Phase
from jobs.runs.checkpoint_store import CheckpointCopier, CheckpointStore, has_digest
from jobs.runs.checkpoints import (
    STATE,
    CheckpointWriter,
    load_checkpoint,
    newest_whole_checkpoint,
    save_weights,
    take_snapshot,
)
from jobs.runs.events import EventLog, WarningsOf
from jobs.runs.receipt import WEIGHTS_NAME
from jobs.runs.stopping import StopRequests
from jobs.training.byte_batches import ByteBatch
from jobs.training.determinism import deterministic
from jobs.training.samples import TrainingSamples
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingError, TrainingStep

log = logging.getLogger(__name__)

_LOCK_SECONDS = 60.0  # an earlier process that was given up may still be ending


class PeerError(UserError):
    """Another process of the group has stopped answering; its own error, if it had one, is the cause."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything one training needs, in a form that travels to a worker.

    config: the paper's `Config`. folders: column -> absolute folder of shards. storage: absolute folder of live
    checkpoints, events and samples, shared by all workers. store: where shards lie that are not in `folders`.
    checkpoints: where this training's checkpoints are copied to, and fetched from where they are missing; then rank 0
    alone needs the storage, which whoever hands out the job has made.
    collective_seconds: how long a process waits for the others before it gives them up.
    """

    generator: str
    config: Any
    train: TrainConfig
    seed: int
    folders: Mapping[str, str]
    storage: str
    threads: int = 1
    loader_workers: int = 0
    prefetch_batches: int = 2
    collective_seconds: float = 600.0
    store: StoreConfig = field(default_factory=StoreConfig)
    checkpoints: StoreConfig | None = None


def train(arguments: dict[str, Any]) -> None:
    """Train one generator to its last step, or to the one after which it is asked to stop.

    arguments: "job", a TrainJob; "is_preempted", a function to ask whether a node will be taken away, if there is one.
    Goes on from the newest whole checkpoint. At the end rank 0 leaves `weights.safetensors` in the job's storage.
    Raises TrainingError when losses or gradients stay not finite, or when the processes cannot share a batch equally;
    PeerError when another process does not answer; StoreError when checkpoints lie in a store alone and it does not.
    """
    job = arguments["job"]
    torch.set_num_threads(job.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))  # else accelerate chooses a number
    with deterministic(job.train.deterministic) as not_repeatable:
        _Training(job, arguments.get("is_preempted"), not_repeatable).run()


class _Training:
    """One process's share of one training."""

    def __init__(self, job: TrainJob, is_preempted: Callable[[], bool] | None, not_repeatable: set[str]) -> None:
        self.job = job
        self.not_repeatable = not_repeatable
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            # Buffers are not broadcast: that would change them between two passes through one discriminator.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device = self.accelerator.device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.recipe = build_recipe(job.generator, job.config, job.seed)
        self._check_batch()
        self.bare = self.recipe.networks
        for network in self.bare.values():
            network.to(self.device, memory_format=torch.channels_last if job.train.channels_last else None)
        self.step = TrainingStep(self.recipe, job.train, self.device)
        self.storage = Path(job.storage)
        self.store = CheckpointStore(job.checkpoints) if job.checkpoints else None
        self.samples = TrainingSamples(
            {name: Path(job.folders[name]) for name in ("image", *self.recipe.columns)},
            job.train.samples,
            job.seed,
            job.store,
        )
        self.stop_requests = StopRequests(self.storage, self.rank, is_preempted, job.collective_seconds)
        self.segments: list[dict[str, int]] = []

    def _check_batch(self) -> None:
        problem = sharing_problem(self.recipe.batch_size, self.world_size, self.job.train.accumulate)
        if problem:
            raise TrainingError(
                f"{problem}; change generators.{self.job.generator}.batch_size, train.accumulate or "
                "cluster.train_workers in params.yaml"
            )

    def run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                if self.rank == 0:
                    stack.enter_context(self._sole_writer())
                    self.events = stack.enter_context(contextlib.closing(EventLog(self.storage / "events.jsonl")))
                    stack.enter_context(contextlib.closing(WarningsOf(self.events, FOLDERS)))
                    self.writer = stack.enter_context(contextlib.closing(self._checkpoint_writer(stack)))
                self._run()
        except RuntimeError as error:
            if self.world_size > 1 and _is_of_a_collective(error):
                absent = self.stop_requests.name_absent()
                raise PeerError(f"rank {self.rank} lost another process; {absent or error}") from error
            raise

    def _checkpoint_writer(self, stack: contextlib.ExitStack) -> CheckpointWriter:
        if self.store is None:
            return CheckpointWriter(self._checkpoints)
        copier = stack.enter_context(CheckpointCopier(self.store))
        return CheckpointWriter(self._checkpoints, on_commit=copier.copy, is_held=copier.is_held)

    def _run(self) -> None:
        step = self._load()
        self._begin_segment(step)
        shutil.rmtree(self._fetched, ignore_errors=True)  # all have loaded it
        batches = self._batches(range(step, self.recipe.steps))
        first = 0
        for phase in self.recipe.phases:
            last = first + phase.steps
            if step < last and not self._run_phase(phase, range(max(first, step), last), first, batches):
                return
            first = last
        if self.rank == 0:
            self.writer.wait()
            save_weights(self.storage / WEIGHTS_NAME, self.step.trained_networks)
        self.accelerator.wait_for_everyone()

    @property
    def _checkpoints(self) -> Path:
        return self.storage / "checkpoints"

    @property
    def _saved_networks(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint holds: the networks and their averages."""
        return {**self.bare, **{f"{name}.average": average for name, average in self.step.averages.items()}}

    def _load(self) -> int:
        """Take up the newest whole checkpoint, the same in all processes; returns its step, 0 if there is none."""
        chosen = [self._newest() if self.rank == 0 else None]
        if self.world_size > 1:
            broadcast_object_list(chosen)
        if chosen[0] is None:
            return 0
        checkpoint = self._at_hand(*chosen[0])
        step, progress = load_checkpoint(checkpoint, self._saved_networks, self.recipe.optimizers)
        self.step.load_state(progress["step"])
        self.segments = progress["segments"]
        log.info("%s continues after step %d of %d", self.job.generator, step, self.recipe.steps)
        return step

    def _newest(self) -> tuple[str, str] | None:
        """Name of the newest whole checkpoint, here or in the store, and the digest of its state."""
        find = self.store.newest if self.store else newest_whole_checkpoint
        newest = find(self._checkpoints)
        return (newest.name, file_digest(newest / STATE)) if newest else None

    def _at_hand(self, name: str, digest: str) -> Path:
        """Where this process finds the checkpoint that rank 0 has chosen; fetched, if it does not see rank 0's."""
        checkpoint = self._checkpoints / name
        if self.store is None or self.world_size == 1:
            return checkpoint
        is_here = self.rank == 0 or has_digest(checkpoint, digest)
        if all(gather_object([is_here])):
            return checkpoint
        if self.rank == 0 and not self.store.holds(checkpoint):
            self.store.put(checkpoint)
        self.accelerator.wait_for_everyone()
        return checkpoint if is_here else self.store.fetch_aside(name, digest, self._fetched)

    @property
    def _fetched(self) -> Path:
        """Where processes that do not see rank 0's storage keep the checkpoint that they start from: not in a folder of
        that name, in which rank 0 would write if it came to this machine."""
        return self.storage.with_name(f".{self.storage.name}.fetched")

    def _begin_segment(self, step: int) -> None:
        """Note who computes the steps from here on; a restart on equal terms changes nothing in the checkpoint."""
        terms = {"world_size": self.world_size, "threads": self.job.threads}
        if not self.segments or {key: self.segments[-1][key] for key in terms} != terms:
            self.segments = [*self.segments, {"from_step": step, **terms}]
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        places = [(socket.gethostname(), name)]
        if self.world_size > 1:
            places = gather_object(places)
        if self.rank == 0:
            nodes, devices = zip(*places, strict=True)
            self.events.segment(from_step=step, world_size=self.world_size, nodes=list(nodes), devices=list(devices))

    @contextlib.contextmanager
    def _sole_writer(self) -> Iterator[None]:
        """Hold the storage's lock, so that a process that was given up cannot write beside its successor."""
        if not self.storage.is_dir():  # made here, it would be seen by nobody who waits for the result elsewhere
            raise TrainingError(
                f"{self.storage} is not there on {socket.gethostname()}; cluster.storage must be a folder that this "
                "machine, of rank 0, and the one that started the training both see under this path"
            )
        with (self.storage / "writer.lock").open("w") as lock:
            if not lock_file(lock, timeout_seconds=_LOCK_SECONDS):
                raise TrainingError(
                    f"another process has written to {self.storage} for {_LOCK_SECONDS:g} s; end it first"
                )
            yield

    def _batches(self, steps: range) -> Iterator[ByteBatch]:
        """This rank's batches of all steps, from one set of loader workers."""
        loader = self.samples.loader(
            steps=steps,
            batch_size=self.recipe.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            num_workers=self.job.loader_workers,
            prefetch_batches=self.job.prefetch_batches,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def _run_phase(self, phase: Phase, steps: range, first: int, batches: Iterator[ByteBatch]) -> bool:
        """Train the steps of one phase, all or what a checkpoint left of them; its first step is number `first`.

        Returns False when asked to stop before the end; the state is then committed.
        """
        phase.require_grad(self.bare, phase.trained)  # the wrappers below exchange what needs gradients now
        self.step.start(phase, {name: self.accelerator.prepare(self.bare[name]) for name in phase.trained})
        clock = _Clock(self.recipe.batch_size)
        for step in steps:
            with clock.waiting():
                batch = self._next(batches)
            self.stop_requests.ask()
            torch.manual_seed(derive_seed(self.job.seed, "step", step, self.rank))
            phase.set_learning_rates(self.recipe.optimizers, step - first)
            terms = self._step(phase, step - first, batch)
            done = step + 1
            if done % self.job.train.log_steps == 0 or done == steps.stop:
                self._log(phase, done, terms, clock)
            if done % self.job.train.sample_steps == 0 or done == self.recipe.steps:
                self._save_samples(phase, done, batch)
            is_stopped = self.stop_requests.agreed()
            if self.rank == 0:
                self.writer.check()
                if done % self.job.train.checkpoint_steps == 0 or done == steps.stop or is_stopped:
                    self._save(done)
            if is_stopped and done < self.recipe.steps:
                if self.rank == 0:
                    self.writer.wait()
                    log.warning("%s stops after step %d, as asked", self.job.generator, done)
                self.accelerator.wait_for_everyone()
                return False
        return True

    def _next(self, batches: Iterator[ByteBatch]) -> Batch:
        batch = next(batches).to(self.device)
        return batch.channels_last() if self.job.train.channels_last else batch

    def _step(self, phase: Phase, step: int, batch: Batch) -> dict[str, Tensor]:
        try:
            return self.step(phase, step, batch)
        except TrainingError as error:
            raise TrainingError(f"{self.job.generator}, step {step + 1} of phase {phase.name}: {error}") from error

    def _save(self, done: int) -> None:
        """Commit the state after `done` steps, in the background."""
        self.events.flush()
        progress = {"step": self.step.state, "segments": self.segments}
        self.writer.write(take_snapshot(done, self._saved_networks, self.recipe.optimizers, progress))

    def _log(self, phase: Phase, step: int, terms: Mapping[str, Tensor], clock: _Clock) -> None:
        """Log every term's mean over the ranks as `<phase>/<term>`."""
        if self.rank == 0:
            self.events.not_repeatable(self.not_repeatable)
        if not terms:  # no update was due
            return
        means = self.accelerator.reduce(torch.stack(tuple(terms.values())).float(), "mean").tolist()
        if self.rank == 0:
            values = {f"{phase.name}/{name}": value for name, value in zip(terms, means, strict=True)}
            self.events.log(step, values, **clock.read(step))

    def _save_samples(self, phase: Phase, step: int, batch: Batch) -> None:
        """Save what the generator makes of a few of this step's samples: input, output in place, truth."""
        if self.rank:
            return
        few = Batch(image=batch.image[:8], mask=batch.mask[:8], edge=None if batch.edge is None else batch.edge[:8])
        filled = inpaint(self.recipe, few)["output"]
        grid = torch.cat(
            [few.image * (1 - few.mask), composite(filled, few.image, few.mask), few.image], dim=2
        )  # (N, 3, 3H, W): one column per sample
        self.events.image(step, torch.cat(tuple(grid), dim=2))
        phase.set_modes(self.bare)


def _is_of_a_collective(error: RuntimeError) -> bool:
    """Whether the exchange with other processes failed, rather than the work of this one."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class _Clock:
    """Speed since the last reading: images per second and the share of time spent waiting for data."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.start, self.waited, self.step = time.monotonic(), 0.0, None

    @contextlib.contextmanager
    def waiting(self):
        before = time.monotonic()
        yield
        self.waited += time.monotonic() - before

    def read(self, step: int) -> dict[str, float]:
        """Figures since the last reading, whose step is `step - n`; starts anew."""
        now = time.monotonic()
        seconds = max(now - self.start, 1e-9)
        steps = step - self.step if self.step is not None else 0
        figures = {"data_wait_share": self.waited / seconds}
        if steps:
            figures["images_per_second"] = steps * self.batch_size / seconds
        self.start, self.waited, self.step = now, 0.0, step
        return figures
