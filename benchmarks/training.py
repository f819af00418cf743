"""Compare the training loop with a bare loop of PyTorch, and measure its start and two workers on CPU cores.

    python -m benchmarks.training                  the figures beside their limits, and JSON into benchmarks/results

DeepFill v2 at demo scale is trained on 128x128 pixels with one thread per process. `bare` is a loop written by hand,
with the same batches, networks, losses and optimizers. A check proves that both end with the same weights.

step: (seconds of a long training - seconds of a short one) / difference of their steps, so that start and end cancel.
checkpoint: (seconds of a long training with checkpoints - seconds of one without) / number of checkpoints.
overhead: of the loop's step over the bare step, in percent. Variants alternate over several rounds, and the median
    counts. One round is not exact to a few per cent, so the quartiles are printed as well.
start: seconds from the start of a fresh process, imports included, until a training of one step has written its
    weights.
start of two processes: the same for two processes of this machine that share the batch.
two workers by one: rate of two processes of this machine / rate of one, with the same global batch.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.photographs import write_split
from jobs.checks.apart import Say, run_apart
from jobs.cluster.launch import train_workers
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import GroupWork
from jobs.generators.build import build_recipe
from jobs.runs.checkpoints import network_state
from jobs.training.loop import TrainJob, train
from jobs.training.samples import TrainingSamples
from jobs.training.settings import TrainConfig
from pipeline.params import read_params

RESULTS = Path(__file__).parent / "results"
GENERATOR, SIZE, BATCH, SHORT = "deepfill_v2", 128, 8, 3
NEVER = 10**9
AT_MOST = {"overhead_percent": 3.0, "checkpoint_in_steps": 1.0, "start_s": 8.0, "start_of_two_processes_s": 15.0}
AT_LEAST = {"two_workers_by_one": 1.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of steps; every third one has starts and workers, too")
    parser.add_argument("--steps", type=int, default=20, help="between a short and a long training (default: 20)")
    parser.add_argument("--checkpoints", type=int, default=4, help="in the long one that has some (default: 4)")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = _Training(Path(folder), arguments.steps).figures(arguments.rounds, arguments.checkpoints)
    kept = {name: found[name] <= limit for name, limit in AT_MOST.items()}
    kept |= {name: found[name] >= limit for name, limit in AT_LEAST.items()}
    for name, value in found.items():
        limit = AT_MOST.get(name, AT_LEAST.get(name))
        print(f"{name:28}{value:10,.2f}" + (f"   limit {limit:g}: {_word(kept[name])}" if limit else ""))
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "generator": GENERATOR,
        "pixels": SIZE,
        "batch": BATCH,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-training.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "limits": AT_MOST | AT_LEAST, "found": found}, indent=1) + "\n")
    print(out)
    sys.exit(0 if all(kept.values()) else 1)


def _word(is_kept: bool) -> str:
    return "kept" if is_kept else "NOT KEPT"


class _Training:
    """Measure variants of one training: the same generator, data and parameters."""

    def __init__(self, root: Path, steps: int) -> None:
        self.root, self.steps = root, steps
        self.folders = {name: str(folder) for name, folder in write_split(root / "shards", 64, size=SIZE).items()}
        self.config = dataclasses.replace(read_params().generators[GENERATOR], batch_size=BATCH)
        self.trainings = 0

    def figures(self, rounds: int, checkpoints: int) -> dict[str, float]:
        """Return all figures, medians over the rounds.

        checkpoints: number of checkpoints in the long training that has some.
        """
        self._check_equal_work()
        every = -(-(SHORT + self.steps) // (checkpoints + 1))
        taken: dict[str, list[float]] = {}
        variants: dict[str, Callable[[], float]] = {
            "bare, short": lambda: timed(bare, self.job(SHORT)),
            "loop, short": lambda: timed(trained, self.job(SHORT)),
            "bare, long": lambda: timed(bare, self.job(SHORT + self.steps)),
            "loop, long": lambda: timed(trained, self.job(SHORT + self.steps)),
            "loop, long, checkpoints": lambda: timed(trained, self.job(SHORT + self.steps, checkpoint_steps=every)),
            "start": lambda: self._start(_train_here, self.job(1)),
            "start of two processes": lambda: self._start(_train_in_processes, (self.job(1), self._cluster(2))),
            "one worker": lambda: self._per_step_in_processes(1),
            "two workers": lambda: self._per_step_in_processes(2),
        }
        for number in range(rounds):
            names = [name for name in variants if number % 3 == 0 or name.startswith(("bare", "loop"))]
            for name in names if number % 2 == 0 else reversed(names):
                taken.setdefault(name, []).append(variants[name]())
        median = {name: statistics.median(values) for name, values in taken.items()}
        bare_steps, loop_steps = (
            [
                (long - short) / self.steps
                for long, short in zip(taken[f"{name}, long"], taken[f"{name}, short"], strict=True)
            ]
            for name in ("bare", "loop")
        )
        bare_step, loop_step = statistics.median(bare_steps), statistics.median(loop_steps)
        overheads = [100 * (ours / theirs - 1) for ours, theirs in zip(loop_steps, bare_steps, strict=True)]
        low, _, high = statistics.quantiles(overheads, n=4, method="inclusive")
        saved = (SHORT + self.steps - 1) // every  # the checkpoint at the end is in all variants
        stall = (median["loop, long, checkpoints"] - median["loop, long"]) / saved
        return {
            "bare_ms": 1e3 * bare_step,
            "loop_ms": 1e3 * loop_step,
            "overhead_percent": 100 * (loop_step / bare_step - 1),
            "overhead_percent_low": low,
            "overhead_percent_high": high,
            "checkpoint_ms": 1e3 * stall,
            "checkpoint_in_steps": stall / loop_step,
            "start_s": median["start"],
            "start_of_two_processes_s": median["start of two processes"],
            "one_worker_images_per_s": BATCH / median["one worker"],
            "two_workers_images_per_s": BATCH / median["two workers"],
            "two_workers_by_one": median["one worker"] / median["two workers"],
        }

    def job(self, steps: int, checkpoint_steps: int = NEVER) -> TrainJob:
        """Return a training of `steps` steps, with a storage of its own."""
        self.trainings += 1
        storage = self.root / f"storage-{self.trainings}"
        storage.mkdir()
        return TrainJob(
            generator=GENERATOR,
            config=dataclasses.replace(self.config, steps=steps),
            train=TrainConfig(deterministic=False, checkpoint_steps=checkpoint_steps, log_steps=10, sample_steps=NEVER),
            seed=1,
            folders=self.folders,
            storage=str(storage),
            threads=1,
            loader_workers=0,
            prefetch_batches=2,
            collective_seconds=600.0,
        )

    def _check_equal_work(self) -> None:
        job = self.job(SHORT)
        trained(job)
        ours, theirs = load_file(Path(job.storage) / "weights.safetensors"), bare(job)
        if not all(torch.allclose(ours[name], tensor, atol=1e-5) for name, tensor in theirs.items()):
            sys.exit("the bare loop and the training loop end with other weights: they do not do the same work")

    def _cluster(self, workers: int) -> ClusterConfig:
        return ClusterConfig(train_workers=workers, max_failures=0, storage=str(self.root / "storage"))

    def _start(self, work: Callable[[Any, Say], None], argument: Any) -> float:
        """Return the seconds from now until a fresh process has trained one step and written its weights."""
        job = argument if isinstance(argument, TrainJob) else argument[0]
        begin = time.time()
        run_apart(work, argument)
        return (Path(job.storage) / "weights.safetensors").stat().st_mtime - begin

    def _per_step_in_processes(self, workers: int) -> float:
        """Return the seconds per step of a group of workers that has trained before."""
        out = self.root / f"seconds-{self.trainings}.json"
        jobs = [self.job(SHORT) for _ in range(2)] + [self.job(SHORT + self.steps)]
        arguments = {"jobs": jobs, "out": str(out)}
        work = GroupWork(function=time_trainings, arguments=arguments, batch_shares=BATCH)
        train_workers(work, self._cluster(workers), name=f"benchmark-{self.trainings}")
        _, short, long = json.loads(out.read_text())
        return (long - short) / self.steps


def timed(work: Callable[[TrainJob], Any], job: TrainJob) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    work(job)
    return time.perf_counter() - start


def trained(job: TrainJob) -> None:
    """Run a training by the loop of this project."""
    train({"job": job})


def bare(job: TrainJob) -> dict[str, Tensor]:
    """Run the same training as a loop of plain PyTorch, and return the weights."""
    torch.set_num_threads(job.threads)
    device = "cuda" if job.use_gpu else "cpu"
    recipe = build_recipe(job.generator, job.config, job.seed)
    for network in recipe.networks.values():
        network.to(device).train()
    samples = TrainingSamples({"image": Path(job.folders["image"])}, job.train.samples, job.seed)
    loader = samples.loader(
        steps=range(recipe.steps), batch_size=recipe.batch_size, rank=0, world_size=1, num_workers=job.loader_workers
    )
    (phase,) = recipe.phases
    for pixels in loader:
        batch = pixels.to(device)
        outputs = phase.forward(recipe.networks, batch)
        for update in phase.updates:
            for name, network in recipe.networks.items():
                network.requires_grad_(name in update.networks)
            sum(update.terms(recipe.networks, batch, outputs).values()).backward()
            for name in update.networks:
                recipe.optimizers[name].step()
                recipe.optimizers[name].zero_grad(set_to_none=True)
        for network in recipe.networks.values():
            network.requires_grad_(True)
    return network_state(recipe.networks)


def time_trainings(arguments: Mapping[str, Any]) -> None:
    """Run trainings one after another in each worker of a group. Rank 0 writes their seconds to a file.

    arguments["jobs"]: the trainings.
    arguments["out"]: path of a JSON file.
    """
    seconds = [timed(trained, job) for job in arguments["jobs"]]
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        Path(arguments["out"]).write_text(json.dumps(seconds))


def _train_here(job: TrainJob, say: Say) -> None:
    train({"job": job})


def _train_in_processes(argument: tuple[TrainJob, ClusterConfig], say: Say) -> None:
    job, cluster = argument
    train_workers(GroupWork(function=train, arguments={"job": job}, batch_shares=BATCH), cluster, name="start")


if __name__ == "__main__":
    main()
