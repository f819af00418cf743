"""Trainings of the toy generator in one process or a group, with faults at chosen steps.

The processes are forked from one that has imported everything. Each is the equivalent of a cluster's worker.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import albumentations  # noqa: F401  # imported late by a training; here once for all processes
import torch
import torch._inductor
from torch import distributed

from files.durable import file_digest
from jobs.cluster.processes import preload, start_fork_server
from jobs.cluster.work import call_until_given_up
from jobs.recipe.contract import Recipe
from jobs.runs.folder import WEIGHTS_NAME
from jobs.training import loop as training_loop
from jobs.training.loop import TrainJob, train
from jobs.training.settings import TrainConfig
from tests.jobs.training.toy import Toy, build_toy

FORKS = multiprocessing.get_context("forkserver")
preload(["tests.jobs.training.trainings", "pipeline.stages.train", "mlflow.store.tracking.sqlalchemy_store"])
PLAIN_WORKER = {"threads": 1, "loader_workers": 0, "prefetch_batches": 2, "collective_seconds": 600.0}
"""Fields of a TrainJob: one thread, without loader workers."""


@dataclass(frozen=True)
class Fault:
    """A fault of one rank just before a step.

    step: counted over the training, from 1.
    copied: first wait until the store has the checkpoint of this step, or a newer one; 0 does not wait.
    signal: signal that the rank sends to itself.
    raises: exception to raise.
    whole_group: send the signal to the whole process group.
    nan: network whose loss becomes NaN.
    steps: for how many steps it is NaN.
    claims_gpu: let PyTorch believe from the start that there is a GPU.
    stuck: for how many seconds the thread that trains waits in C, as in a call that waits for a GPU; other threads run
        on.
    """

    step: int
    rank: int = 0
    copied: int = 0
    signal: signal.Signals | None = None
    raises: Exception | None = None
    whole_group: bool = False
    nan: str = ""
    steps: int = 1
    claims_gpu: bool = False
    stuck: int = 0


def make_job(folders: dict[str, Path], storage: Path, **changes: Any) -> TrainJob:
    """Return a job of 40 steps of the toy, with a checkpoint every 5.

    changes: fields of the job, its `train` or its `config`.
    """
    parts = {
        kind: {f.name: changes[f.name] for f in dataclasses.fields(kind) if f.name in changes}
        for kind in (TrainJob, TrainConfig, Toy)
    }
    storage.mkdir(parents=True, exist_ok=True)
    settings = {"checkpoint_steps": 5, "log_steps": 5, "sample_steps": 1000}
    return TrainJob(
        generator="toy",
        config=Toy(**parts[Toy]),
        train=TrainConfig(**settings | parts[TrainConfig]),
        folders={name: str(path) for name, path in folders.items()},
        storage=str(storage),
        **PLAIN_WORKER | {"seed": 4} | parts[TrainJob],
    )


@dataclass(frozen=True)
class Ended:
    """How a group ended.

    codes: exit code of each rank, negative for signals.
    said: text of each rank's error, "" if it had none.
    """

    codes: list[int]
    said: list[str]
    seconds: float


def run_group(
    job: TrainJob,
    world_size: int = 1,
    faults: Sequence[Fault] = (),
    seen: Path | None = None,
    patience: float = 120,
    apart: bool = False,
    grace: float = 1.0,
    exchange_seconds: float | None = None,
) -> Ended:
    """Train in a group of processes. Once one has failed, the others are soon killed, as Ray does.

    grace: seconds from the first failure to the end of the others.
    exchange_seconds: how long exchanges of gradients wait; None = `collective_seconds`.

    seen: folder to which each rank appends the keys and the digest of every batch that it trains on.
    patience: longest time, in seconds.
    apart: each rank but the first has a storage of its own, as on a machine that does not see rank 0's.
    """
    began = time.monotonic()
    jobs = [dataclasses.replace(job, storage=f"{job.storage}-{n}") if apart and n else job for n in range(world_size)]
    with tempfile.TemporaryDirectory() as meeting:
        ranks = [
            FORKS.Process(
                target=_rank,
                args=(rank_job, rank, world_size, Path(meeting), faults, seen, dict(os.environ), exchange_seconds),
            )
            for rank, rank_job in enumerate(jobs)
        ]
        start_fork_server()
        for process in ranks:
            process.start()
        failed_at = None
        while any(process.is_alive() for process in ranks):
            now = time.monotonic()
            if failed_at is None and any(process.exitcode for process in ranks):
                failed_at = now
            if (failed_at is not None and now - failed_at > grace) or now - began > patience:
                for process in ranks:
                    process.kill()
            time.sleep(0.01)
        said = [_text(Path(meeting, f"said-{rank}")) for rank in range(world_size)]
    assert time.monotonic() - began < patience, f"not finished after {patience} s; said: {said}"
    return Ended([process.exitcode for process in ranks], said, time.monotonic() - began)


def weights_digest(job: TrainJob) -> str:
    return file_digest(Path(job.storage) / WEIGHTS_NAME)


def checkpointed(job: TrainJob) -> list[int]:
    """Return the steps of the committed checkpoints, sorted."""
    return sorted(int(path.name.removeprefix("step-")) for path in Path(job.storage, "checkpoints").glob("step-*"))


def batches_seen(folder: Path) -> list[tuple[int, int, list[str], str]]:
    """Return (step, rank, keys, digest of the tensors) of every batch trained on by any process, by time."""
    rows = [json.loads(line) for path in folder.glob("rank-*") for line in path.read_text().splitlines()]
    return [tuple(row[1:]) for row in sorted(rows)]


def _rank(
    job: TrainJob,
    rank: int,
    world_size: int,
    meeting: Path,
    faults: Sequence[Fault],
    seen: Path | None,
    environment: dict[str, str],
    exchange_seconds: float | None,
) -> None:
    os.environ |= environment  # the fork server has the environment of its own start
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, the default on Linux
    if world_size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}
        wait = timedelta(seconds=exchange_seconds or job.collective_seconds)
        meet = f"file://{meeting}/meet"
        distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=world_size, timeout=wait)
    own_faults = [fault for fault in faults if fault.rank == rank]
    if any(fault.claims_gpu for fault in own_faults):
        torch.cuda.is_available = lambda: True
        torch.optim.Optimizer._accelerator_graph_capture_health_check = lambda self: None  # it would ask the GPU
    watch_steps(own_faults, seen)
    training_loop.build_recipe = _spoiling([fault for fault in own_faults if fault.nan])
    code = 0
    try:
        call_until_given_up(train, {"job": job})
    except BaseException as error:
        traceback.print_exc()
        (meeting / f"said-{rank}").write_text(f"{type(error).__name__}: {error}")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # a process group that lost a member cannot be destroyed


def watch_steps(faults: Sequence[Fault], seen: Path | None = None) -> None:
    """Make the trainings of this process have faults, and note their batches in a folder.

    Only for generators with one phase, so that a step's number in the phase is its number in the training.
    """
    do_step = training_loop._Training._step

    def step(self, phase, number, batch):
        for fault in faults:
            if fault.step == number + 1:
                while fault.copied and max(self.store.names(), default="") < f"step-{fault.copied:08d}":
                    time.sleep(0.02)
                if fault.signal and fault.whole_group:
                    os.killpg(0, fault.signal)
                elif fault.signal:
                    os.kill(os.getpid(), fault.signal)
                if fault.stuck:
                    (Path(self.job.storage) / f"stuck-{self.rank}").touch()
                    ctypes.CDLL(None).sleep(fault.stuck)
                if fault.raises:
                    raise fault.raises
        if seen:
            digest = hashlib.sha256(batch.image.numpy().tobytes() + batch.mask.numpy().tobytes()).hexdigest()
            with (seen / f"rank-{self.rank}").open("a") as file:
                file.write(json.dumps([time.time_ns(), number + 1, self.rank, list(batch.key), digest]) + "\n")
        return do_step(self, phase, number, batch)

    training_loop._Training._step = step


def _spoiling(faults: Sequence[Fault]) -> Callable[..., Recipe]:
    def build(*arguments: Any) -> Recipe:
        recipe = build_toy(*arguments)
        (phase,) = recipe.phases
        updates = tuple(_spoiled(update, faults) for update in phase.updates)
        return dataclasses.replace(recipe, phases=(dataclasses.replace(phase, updates=updates),))

    return build


def _spoiled(update, faults):
    calls = 0

    def terms(*arguments):
        nonlocal calls
        calls += 1
        spoiled = any(f.nan in update.networks and f.step <= calls < f.step + f.steps for f in faults)
        # Added, not multiplied, so that the gradients of the loss stay finite.
        return {name: value + float("nan") if spoiled else value for name, value in update.terms(*arguments).items()}

    return dataclasses.replace(update, terms=terms)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
