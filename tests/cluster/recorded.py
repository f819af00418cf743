"""A training that writes down which samples every step consumed, on which rank of which attempt."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from benchmarks.photographs import write_split
from jobs.cluster.launch import train_workers
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import GroupWork
from jobs.generators import card
from jobs.training import loop as training_loop
from jobs.training import samples
from jobs.training.loop import TrainJob
from jobs.training.settings import TrainConfig

RECORDS, BATCH, STEPS, CHECKPOINT_STEPS = 24, 4, 24, 4
PACE_SECONDS = 0.1  # a step of the toy generator takes less than any watcher can follow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consumed:
    """The keys that one rank trained on at one step; `attempt` is when its group of processes began."""

    attempt: float
    world_size: int
    rank: int
    step: int
    seconds: float
    keys: list[str]


def write_shards(folder: Path) -> None:
    """The data set of `drive`."""
    write_split(folder / "shards", RECORDS, per_shard=4)


def drive(folder: Path) -> None:
    """Train on the cluster that RAY_ADDRESS names, on two processes where there is room and on one otherwise."""
    config = dataclasses.replace(card("context_encoder").Config.tiny(), steps=STEPS, batch_size=BATCH)
    (folder / "storage").mkdir(exist_ok=True)
    job = TrainJob(
        generator="context_encoder",
        config=config,
        train=TrainConfig(checkpoint_steps=CHECKPOINT_STEPS, log_steps=2, sample_steps=STEPS),
        seed=4,
        folders={column: str(folder / "shards" / column / "train") for column in ("image", "edge")},
        storage=str(folder / "storage"),
        threads=1,
        loader_workers=0,
        prefetch_batches=2,
        collective_seconds=600.0,
    )
    cluster = ClusterConfig(train_workers=(1, 2), storage=str(folder / "storage"))
    arguments = {"job": job, "record": str(folder / "consumed")}
    train_workers(GroupWork(function=train, arguments=arguments, batch_shares=BATCH), cluster, name="two-nodes")


def train(arguments: dict) -> None:
    """`jobs.training.loop.train` of arguments["job"], in a process that notes every batch it takes."""
    folder = Path(arguments["record"])
    folder.mkdir(exist_ok=True)
    attempt = [time.time()]
    if dist.is_initialized():
        dist.broadcast_object_list(attempt)
    loader = samples.TrainingSamples.loader

    def recorded(self, *, steps: range, rank: int, world_size: int, **options) -> Iterator:
        with (folder / f"{attempt[0]}-{rank}.jsonl").open("a") as file:
            batches = loader(self, steps=steps, rank=rank, world_size=world_size, **options)
            for step, batch in zip(steps, batches, strict=True):
                time.sleep(PACE_SECONDS)
                line = Consumed(
                    attempt=attempt[0],
                    world_size=world_size,
                    rank=rank,
                    step=step,
                    seconds=time.time(),
                    keys=list(batch.key),
                )
                file.write(json.dumps(dataclasses.asdict(line)) + "\n")
                file.flush()
                yield batch

    samples.TrainingSamples.loader = recorded
    training_loop.train(arguments)


def read_consumed(folder: Path) -> list[Consumed]:
    """All that was noted so far, by all attempts; a line still being written is left out."""
    return [
        Consumed(**json.loads(line))
        for path in sorted((folder / "consumed").glob("*.jsonl"))
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


if __name__ == "__main__":  # the functions that travel to workers must not be of a module called __main__
    from tests.cluster import recorded

    recorded.drive(Path(sys.argv[1]))
