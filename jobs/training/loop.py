"""The training loop of every paper: it knows phases and updates, and no paper. Only this file imports accelerate.

It runs in one process or in each process of a group. A step depends on (seed, step, rank) and the weights alone.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from datasets.stream.plan import sharing_problem
from files.errors import UserError
from files.objects import StoreConfig
from files.seeds import derive_seed
from jobs.generators.build import build_recipe, inpaint
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Phase, Terms
from jobs.runs.agreement import Group, agree_on_checkpoint
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoints import load_checkpoint
from jobs.runs.folder import RunFolder
from jobs.runs.roll_call import RollCall
from jobs.runs.stopping import StopRequests
from jobs.training.byte_batches import ByteBatch
from jobs.training.global_batch import learning_rate_factor, with_global_batch
from jobs.training.learning_rates import LearningRates
from jobs.training.numerics import numerics
from jobs.training.run_writer import NullRunWriter, open_run_writer
from jobs.training.samples import TrainingSamples
from jobs.training.settings import TrainConfig
from jobs.training.side_stream import BatchCopier
from jobs.training.step import TrainingError, TrainingStep

log = logging.getLogger(__name__)

_NUM_PICTURES = 8  # samples in a sample picture


class PeerError(UserError):
    """Another process of the group has stopped answering. Its own error, if it had one, is the cause."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that one training needs, picklable.

    generator: its name.
    config: the paper's `Config`.
    train: how it is trained.
    seed: of the training.
    folders: column name -> absolute folder of its manifest and shards.
    digests: column name -> digest that its manifest must have.
    storage: absolute run folder. All workers see it; if checkpoints are copied to a store, only rank 0 has to.
    threads: CPU threads of each worker.
    use_gpu: whether each worker has a GPU.
    loader_workers: loader workers of each worker; 0 reads in the worker itself.
    prefetch_batches: how many batches each loader worker reads ahead.
    collective_seconds: how long a worker waits for the others before it gives them up.
    store: where shards are that are not in `folders`.
    checkpoints: where checkpoints are copied to, and fetched from if the storage lacks them; None copies nothing.
    """

    generator: str
    config: Any
    train: TrainConfig
    seed: int
    folders: Mapping[str, str]
    storage: str
    threads: int
    loader_workers: int
    prefetch_batches: int
    collective_seconds: float
    store: StoreConfig = field(default_factory=StoreConfig)
    checkpoints: StoreConfig | None = None
    use_gpu: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)


def train(arguments: dict[str, Any]) -> None:
    """Train one generator to its last step, or until it is asked to stop.

    arguments["job"]: a TrainJob.
    arguments["is_preempted"]: optional; a function that returns whether a node will be taken away.
    arguments["give_up"]: optional; a function that takes an error and ends the process with it, from any thread.

    It continues from the newest undamaged checkpoint. After the last step rank 0 writes the weights to the run folder.
    Raises TrainingError if losses or gradients stay not finite, or if the processes cannot share a batch equally;
    PeerError if another process does not answer; StoreError if only the store can have a checkpoint and it does not
    answer.
    """
    job = arguments["job"]
    torch.set_num_threads(job.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))  # else accelerate chooses a number
    with numerics(job.train) as not_repeatable:
        _Training(job, arguments.get("is_preempted"), arguments.get("give_up"), not_repeatable).run()


class _Training:
    """One process's share of one training."""

    def __init__(
        self,
        job: TrainJob,
        is_preempted: Callable[[], bool] | None,
        give_up: Callable[[BaseException], None] | None,
        not_repeatable: set[str],
    ) -> None:
        if job.use_gpu and not torch.cuda.is_available():
            raise TrainingError(
                f"{socket.gethostname()} has no GPU that PyTorch can use; see what nvidia-smi says there"
            )
        self.job = job
        self.not_repeatable = not_repeatable
        self.accelerator = Accelerator(
            cpu=not job.use_gpu,  # a worker may see GPUs that it is not given
            # Broadcasting buffers would change them between two passes through one discriminator.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device = self.accelerator.device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        papers = build_recipe(job.generator, job.config, job.seed)
        self.recipe = with_global_batch(papers, job.train)
        self._check_batch()
        for network in (*self.recipe.networks.values(), *self.recipe.feature_networks):
            network.to(self.device, memory_format=torch.channels_last if job.train.channels_last else None)
        self.step = TrainingStep(self.recipe, job.train, self.device)
        factor = learning_rate_factor(papers.batch_size, job.train)
        self.rates = LearningRates(self.recipe, job.train.learning_rate_decay, factor)
        self.folder = RunFolder(Path(job.storage))
        self.store = CheckpointStore(job.checkpoints) if job.checkpoints else None
        self.samples = TrainingSamples(
            {name: Path(job.folders[name]) for name in ("image", *self.recipe.columns)},
            job.train.samples,
            job.seed,
            job.store,
            job.digests,
        )
        self.stop_requests = StopRequests(self.folder.stop_request, self.rank, is_preempted, job.collective_seconds)
        self.copy_batch = BatchCopier(self.device)
        self.roll_call = self._open_roll_call(give_up)
        self.segments: list[dict[str, int]] = []
        """For checkpoints, an entry per change of workers: their first step, number of processes and of threads."""
        self.writer = NullRunWriter()

    def _open_roll_call(self, give_up: Callable[[BaseException], None] | None) -> RollCall | None:
        if self.world_size == 1:
            return None

        def end(absent: str) -> None:
            log.error("%s", self._describe_loss(absent))
            if give_up:
                give_up(PeerError(self._describe_loss(absent)))

        return RollCall(self.rank, self.world_size, self.job.collective_seconds, end)

    def _describe_loss(self, absent: str) -> str:
        return f"rank {self.rank} lost another process; {absent}"

    def _note(self, activity: str) -> None:
        """Note for the other processes what this one does."""
        if self.roll_call:
            self.roll_call.note(activity)

    def _check_batch(self) -> None:
        problem = sharing_problem(self.recipe.batch_size, self.world_size, self.job.train.accumulate)
        if problem:
            raise TrainingError(
                f"{problem}; change generators.{self.job.generator}.batch_size, train.accumulate or "
                "cluster.train_workers in params.yaml"
            )

    def run(self) -> None:
        try:
            with open_run_writer(self.folder, self.store, self.rank) as self.writer:
                self._run()
            if self.roll_call:
                self.roll_call.close()
        except torch.OutOfMemoryError as error:
            text = str(error).strip().splitlines()[0]
            raise TrainingError(f"{self.job.generator}: {text} {self._describe_memory_remedy()}") from error
        except RuntimeError as error:
            if self.world_size > 1 and _is_of_collective(error):
                raise PeerError(self._describe_loss(self.roll_call.find_absent() or str(error))) from error
            raise

    def _describe_memory_remedy(self) -> str:
        share, present = self.recipe.batch_size // self.world_size, self.job.train.accumulate
        larger = next((number for number in range(present + 1, share + 1) if share % number == 0), None)
        if larger is None:
            return "Set train.precision to bf16, lower the images' size, or take GPUs with more memory"
        return f"Set train.accumulate to {larger} in params.yaml, which computes a batch in smaller parts"

    def _run(self) -> None:
        step = self._load()
        self._begin_segment(step)  # all processes have loaded the checkpoint once this returns
        shutil.rmtree(self.folder.fetched_checkpoints, ignore_errors=True)
        batches = self._read_batches(range(step, self.recipe.steps))
        first = 0
        for phase in self.recipe.phases:
            end = first + phase.steps
            if step < end and not self._run_phase(phase, range(max(first, step), end), first, batches):
                return
            first = end
        self.writer.finish(self.step.trained_networks)
        self.accelerator.wait_for_everyone()

    @property
    def _saved_networks(self) -> dict[str, nn.Module]:
        """Networks in a checkpoint: the recipe's, and their averages."""
        averages = {f"{name}.average": average for name, average in self.step.averages.items()}
        return {**self.recipe.networks, **averages}

    def _load(self) -> int:
        """Load the newest undamaged checkpoint, the same in all processes. Returns its step; 0 if there is none."""
        group = Group(
            rank=self.rank,
            world_size=self.world_size,
            broadcast=lambda value: broadcast_object_list([value])[0],
            gather=lambda value: gather_object([value]),
            wait=self.accelerator.wait_for_everyone,
        )
        checkpoint = agree_on_checkpoint(self.folder, self.store, group)
        if checkpoint is None:
            return 0
        step, progress = load_checkpoint(checkpoint, self._saved_networks, self.recipe.optimizers)
        self.step.load_state(progress["step"])
        self.segments = progress["segments"]
        log.info("%s continues after step %d of %d", self.job.generator, step, self.recipe.steps)
        return step

    def _begin_segment(self, step: int) -> None:
        """Log which workers compute the steps from here on.

        `self.segments` only grows if their number or threads change, so that a restart does not change checkpoints.
        """
        workers = {"world_size": self.world_size, "threads": self.job.threads}
        if not self.segments or {key: self.segments[-1][key] for key in workers} != workers:
            self.segments = [*self.segments, {"from_step": step, **workers}]
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        log.info("%s computes in %s", self.job.generator, self.job.train.describe_precision())
        nodes, devices = zip(*gather_object([(socket.gethostname(), device)]), strict=True)
        self.writer.begin_segment(from_step=step, nodes=nodes, devices=devices)

    def _read_batches(self, steps: range) -> Iterator[ByteBatch]:
        """Yield this rank's batches of all steps, read by one set of loader workers."""
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
        """Train the steps of one phase.

        steps: global numbers of those that remain.
        first: global number of the phase's first step.

        Returns False if asked to stop before the last step of the training; the state is then saved.
        """
        # accelerate's wrappers exchange the gradients of those parameters that need them when they are made.
        phase.require_grad(self.recipe.networks, phase.trained)
        self.step.start(phase, {name: self.accelerator.prepare(self.recipe.networks[name]) for name in phase.trained})
        clock = _Clock(self.recipe.batch_size)
        for step in steps:
            self._note(f"waits for the data of step {step + 1}")
            with clock.waiting():
                batch = self._next(batches)
            self.stop_requests.broadcast()
            torch.manual_seed(derive_seed(self.job.seed, "step", step, self.rank))
            self.rates.set(step)
            self._note(f"computes step {step + 1}")
            done = step + 1
            is_logged = done % self.job.train.log_steps == 0 or done == steps.stop
            is_saved = done % self.job.train.checkpoint_steps == 0 or done == steps.stop
            terms = self._step(phase, step - first, batch)
            if is_logged or is_saved:
                with self._naming(phase, step - first):
                    self.step.check()
            if is_logged:
                self._log(phase, done, terms, clock)
            if done % self.job.train.sample_steps == 0 or done == self.recipe.steps:
                self.writer.save_sample(done, partial(self._draw_samples, phase, batch))
            must_stop = self.stop_requests.is_stop_agreed()
            self.writer.check()
            if is_saved or must_stop:
                self._save(done)
            if must_stop and done < self.recipe.steps:
                self.writer.stop(f"{self.job.generator} stops after step {done}, as asked")
                self.accelerator.wait_for_everyone()
                return False
        return True

    def _next(self, batches: Iterator[ByteBatch]) -> Batch:
        batch = self.copy_batch(next(batches))
        return batch.channels_last() if self.job.train.channels_last else batch

    def _step(self, phase: Phase, step: int, batch: Batch) -> Terms:
        with self._naming(phase, step):
            return self.step(step, batch)

    @contextlib.contextmanager
    def _naming(self, phase: Phase, step: int) -> Iterator[None]:
        """Add generator, step and phase to a TrainingError."""
        try:
            yield
        except TrainingError as error:
            raise TrainingError(f"{self.job.generator}, step {step + 1} of phase {phase.name}: {error}") from error

    def _save(self, done: int) -> None:
        self._note(f"saves step {done}")
        progress = {"step": self.step.state, "segments": self.segments}
        self.writer.save_checkpoint(done, self._saved_networks, self.recipe.optimizers, progress)

    def _log(self, phase: Phase, done: int, terms: Terms, clock: _Clock) -> None:
        """Log every term's mean over the ranks as `<phase>/<term>`."""
        self.writer.log_not_repeatable(self.not_repeatable)
        if not terms:  # no update was due
            return
        means = self.accelerator.reduce(torch.stack(tuple(terms.values())).float(), "mean").tolist()
        losses = {f"{phase.name}/{name}": mean for name, mean in zip(terms, means, strict=True)}
        self.writer.log(done, losses, clock.read(done))

    def _draw_samples(self, phase: Phase, batch: Batch) -> Tensor:
        """Inpaint a few samples of a batch.

        Returns a picture (3, 3H, N*W) in [-1, 1], a column per sample: masked image, composite, image.
        """
        edge = None if batch.edge is None else batch.edge[:_NUM_PICTURES]
        few = Batch(image=batch.image[:_NUM_PICTURES], mask=batch.mask[:_NUM_PICTURES], edge=edge)
        output = inpaint(self.recipe, few)["output"]
        rows = [few.image * (1 - few.mask), composite(output, few.image, few.mask), few.image]
        phase.set_modes(self.recipe.networks)  # `inpaint` has put them into eval mode
        return torch.cat(tuple(torch.cat(rows, dim=2)), dim=2)  # (N, 3, 3H, W), then side by side


def _is_of_collective(error: RuntimeError) -> bool:
    """Return whether an exchange with other processes failed, rather than the work of this one."""
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "nccl" in text


class _Clock:
    """Measure images per second, and the share of time spent waiting for data, between two readings."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._start = time.monotonic()
        self._waited = 0.0
        self._step: int | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time until the context ends as waiting for data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    def read(self, step: int) -> dict[str, float]:
        """Return the figures since the last reading, and begin the next. step: steps done so far.

        The first reading has no images_per_second: its first step also allocates and tunes.
        """
        now = time.monotonic()
        seconds = max(now - self._start, 1e-9)
        figures = {"data_wait_share": self._waited / seconds}
        if self._step is not None and step > self._step:
            figures["images_per_second"] = (step - self._step) * self.batch_size / seconds
        self._start = now
        self._waited = 0.0
        self._step = step
        return figures
