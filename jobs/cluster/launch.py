"""Choose where work runs: in this process, in processes of this machine, or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from jobs.cluster.gpus import check_gpus
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import (
    GroupWork,
    WorkerError,
    count_cores,
    group_size,
    last_line,
    most_telling_cause,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
NumWorkers = int | Literal["auto"]

log = logging.getLogger(__name__)
_PAYS_SECONDS = 8.0
"""Work that takes longer is divided among processes. To start one takes about 2 s, nearly all of it imports."""


def map_tasks(task: Callable[[Item], Result], items: Sequence[Item], *, num_workers: NumWorkers) -> Iterator[Result]:
    """Apply a function to every item and yield the results in order of completion.

    num_workers: how many run at once; 0 runs them in this process and in order, -1 as many as there are cores. "auto"
        begins in this process and measures: what is left is divided among all cores once it would take longer here than
        there. On a cluster, -1 and "auto" are the CPUs of the cluster.
    Raises the first failure as the task raised it; later items are not started. Raises WorkerError if a worker process
    ends early several times.
    """
    if num_workers == 0 or len(items) <= 1:
        yield from map(task, items)
    elif _is_cluster():
        from jobs.cluster.ray_cluster import map_on_cluster

        yield from map_on_cluster(task, items, num_workers=_number(num_workers))
    elif num_workers == "auto":
        yield from _map_where_faster(task, items)
    else:
        yield from _map_in_processes(task, items, _number(num_workers) or count_cores())


@contextmanager
def keep_workers(num_workers: NumWorkers) -> Iterator[None]:
    """Keep the connection to the cluster from one `map_tasks` to the next. Without a cluster there is none to keep."""
    if num_workers == 0 or not _is_cluster():
        yield
        return
    from jobs.cluster.ray_cluster import connect_ray

    with connect_ray(_number(num_workers)):
        yield


def prepare_training(config: ClusterConfig, modules: Sequence[str]) -> None:
    """Let the processes of this machine that will train, if any, import modules in the background from now on.

    modules: names of modules that `train_workers` will need.
    """
    if config.worker_range[1] > 0 and not _is_cluster():
        from jobs.cluster.processes import preload, start_fork_server

        preload(modules)
        start_fork_server()


def train_workers(work: GroupWork, config: ClusterConfig, *, name: str) -> None:
    """Run the work as one group of processes, and start the group again after a failure.

    config: `train_workers` processes at once; 0 runs the work in this process. `max_failures` further starts.
    name: of the training, for messages.
    Raises WorkerError with the first cause once the starts are used up; in this process, the last error. Raises
    WorkerError at once if the processes need GPUs and this machine, which they would run on, has none.
    """
    check_gpus(config)
    first_cause, failures = "", 0
    while True:
        try:
            _start_group(work, config, f"{name}-{uuid.uuid4().hex[:8]}")
            if work.is_finished():
                return
        except Exception as error:
            cause = most_telling_cause(error, work)
            if isinstance(cause, work.fatal_errors):
                raise cause from error
            first_cause, failures = first_cause or last_line(cause), failures + 1
            if failures > config.max_failures:
                if config.worker_range[1] == 0:
                    raise
                starts = f" at the first of {failures} starts" if failures > 1 else ""
                raise WorkerError(f"training {name} failed{starts}: {first_cause}") from error
            log.warning("training %s failed (%s); starting it again", name, last_line(cause))
            del cause  # it may hold the frames that hold Ray's objects, see `connect_ray`


def _start_group(work: GroupWork, config: ClusterConfig, name: str) -> None:
    """Run the work once. name: of this start, which no other start has."""
    if config.worker_range[1] == 0:
        work.function(work.arguments)
    elif _is_cluster():
        from jobs.cluster.ray_cluster import run_group_on_cluster

        run_group_on_cluster(work, config, name)
    else:
        from jobs.cluster.processes import run_group

        size = group_size(config, work.batch_shares, _room(config))
        run_group(work, size, use_gpu=config.use_gpu, collective_seconds=config.collective_seconds)


def _is_cluster() -> bool:
    return "RAY_ADDRESS" in os.environ


def _number(num_workers: NumWorkers) -> int | None:
    """Return the number of workers; None for as many as there are cores."""
    return None if num_workers in ("auto", -1) else num_workers


def _room(config: ClusterConfig) -> int:
    """Return for how many training processes this machine has room."""
    if not config.use_gpu:
        return count_cores()
    import torch  # here, since tasks without training do without it

    return torch.cuda.device_count()


def _map_where_faster(task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply the function in this process, and in processes of their own once the rest would take long here."""
    fastest = float("inf")
    for number, item in enumerate(items, start=1):
        began = time.monotonic()
        result = task(item)
        fastest = min(fastest, time.monotonic() - began)
        yield result
        if number == 1 and fastest < 2 * _PAYS_SECONDS:
            continue  # the first item also imports what the others find imported
        rest = items[number:]
        seconds = fastest * len(rest)
        if seconds > _PAYS_SECONDS and len(rest) > 1 and count_cores() > 1:
            log.warning("%d tasks would take %.0f s here; they go to %d processes", len(rest), seconds, count_cores())
            yield from _map_in_processes(task, rest, min(count_cores(), len(rest)))
            return


def _map_in_processes(task: Callable[[Item], Result], items: Sequence[Item], size: int) -> Iterator[Result]:
    from jobs.cluster.processes import Pool, modules_of

    with Pool(size, modules_of(task)) as pool:
        yield from pool.map(task, items)
