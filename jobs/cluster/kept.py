"""Apply a function that is expensive to make, such as one that needs loaded networks: each worker makes it once."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

from jobs.cluster.launch import map_tasks
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import WorkerError, count_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
Opener = Callable[[int], Callable[[Item], Result]]
"""opener(cores): makes the function, for a worker that may use that many cores. It must be picklable."""

_kept: dict[str, Callable] = {}
"""The name of the last task of this process -> its function."""


class KeptTask(Generic[Item, Result]):
    """A task whose function is made at the first item that a process gets, and kept for the others.

    opener: makes the function.
    cores: number of cores that each process may use.
    """

    def __init__(self, opener: Opener, cores: int = 1) -> None:
        self.opener = opener
        self._cores = cores
        self._name = uuid.uuid4().hex

    def __call__(self, item: Item) -> Result:
        """Apply the function to an item."""
        if self._name not in _kept:
            _kept.clear()
            _kept[self._name] = self.opener(self._cores)
        return _kept[self._name](item)


def map_kept(opener: Opener, items: Sequence[Item], config: ClusterConfig, *, use_gpu: bool) -> Iterator[Result]:
    """Apply a function to every item on workers that each make it once. Yields the results in order of completion.

    opener: makes the function.
    config: `num_workers` as in `launch.map_tasks`.
    use_gpu: give each worker one GPU and its share of the cores, with at most one worker per GPU; in this process, at 0
        workers, all cores. Without a GPU each worker has one core.
    Raises the first failure as the function raised it. Raises WorkerError if a worker ends early several times, or if
    there is no GPU.
    """
    try:
        if config.num_workers != 0 and "RAY_ADDRESS" in os.environ:
            from jobs.cluster.ray_cluster import map_on_actors

            most = None if config.num_workers in ("auto", -1) else config.num_workers
            yield from map_on_actors(partial(KeptTask, opener), items, num_workers=most, use_gpu=use_gpu)
        elif use_gpu:
            yield from _map_on_gpus(opener, items, config)
        else:
            yield from map_tasks(KeptTask(opener), items, num_workers=config.num_workers)
    finally:
        _kept.clear()


def _map_on_gpus(opener: Opener, items: Sequence[Item], config: ClusterConfig) -> Iterator[Result]:
    """Apply the function in one process per GPU of this machine."""
    import torch  # here, since work without GPUs does without it

    gpus = torch.cuda.device_count()
    if not gpus:
        raise WorkerError(
            "cluster.use_gpu is true, but torch finds no GPU on this machine; set it to false, or join a cluster with "
            "RAY_ADDRESS"
        )
    size = gpus if config.num_workers in ("auto", -1) else min(gpus, config.num_workers)
    size = min(size, len(items))
    task = KeptTask(opener, max(1, count_cores() // max(size, 1)))
    if size <= 1:
        yield from map(task, items)
        return
    from jobs.cluster.processes import Pool, gpu_environment, modules_of

    with Pool(size, modules_of(task), environment=gpu_environment) as pool:
        yield from pool.map(task, items)
