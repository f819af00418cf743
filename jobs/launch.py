"""Where work runs: in this process, or on Ray workers. The only file that imports ray.

`RAY_ADDRESS` joins a cluster; without it a Ray of this machine alone is started, on loopback, and stopped again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
# The code is shipped to workers, without what git ignores, .git and .venv, which Ray leaves out by itself.
_EXCLUDED = [".dvc"]
_TOKEN = Path.home() / ".ray" / "auth_token"
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps a one-machine Ray on loopback, on Linux too
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing calls home
}


class WorkerError(RuntimeError):
    """Work failed on a worker more often than allowed; the message carries the first cause."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How many processes do the work. Of these only `train_workers` and `threads` can change a result, by rounding.

    num_workers: tasks at once in ingest, precompute and evaluate; 0 = in this process, without Ray; -1 = as many as
        this machine, or the cluster, has cores.
    train_workers: training processes, which share each batch; 0 = in this process, without Ray.
    threads: CPU threads of each training process.
    loader_workers: processes that read and decode for each training process; 0 = it does so itself.
    prefetch_batches: how many batches each of them is ahead.
    max_failures: restarts of a training before it stops with the first cause.
    storage: folder or URL of live checkpoints and logs.
    """

    num_workers: int = 2
    train_workers: int = 2
    threads: int = 1
    loader_workers: int = 0
    prefetch_batches: int = 2
    use_gpu: bool = False
    max_failures: int = 3
    storage: str = "runs"

    def __post_init__(self) -> None:
        if self.num_workers < -1:
            raise ValueError(f"num_workers must be -1 or more, got {self.num_workers}")


def map_tasks(task: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int) -> Iterator[Result]:
    """Apply a function to every item, at most `num_workers` at once, and yield results in order of completion.

    0 workers: in this process. -1: as many as there are cores.
    The first failure stops the rest and is raised as it was.
    """
    if num_workers == 0 or len(items) <= 1:
        yield from map(task, items)
        return
    with _ray(num_workers) as ray:
        if num_workers < 0:
            num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=3)(_apply)
        waiting = list(reversed(items))
        running = []
        while waiting or running:
            while waiting and len(running) < num_workers:
                running.append(remote.remote(task, waiting.pop()))
            done, running = ray.wait(running, num_returns=1)
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield result


@contextmanager
def workers_at_hand(num_workers: int) -> Iterator[None]:
    """Keep Ray and its workers from one `map_tasks` to the next; with 0 workers there is nothing to keep."""
    if num_workers == 0:
        yield
        return
    with _ray(num_workers):
        yield


def train_workers(work: Callable[[dict], None], arguments: dict, config: ClusterConfig, *, name: str) -> None:
    """Run `work(arguments)` on every training process, as one group that restarts together after a failure.

    Inside, torch.distributed is initialised when there is more than one process.
    Raises WorkerError with the first cause once `max_failures` restarts are used up.
    """
    if config.train_workers == 0:
        work(arguments)
        return
    with _ray(config.train_workers):
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = {"CPU": 1} if not config.use_gpu else {"CPU": 1, "GPU": 1}
        trainer = TorchTrainer(
            work,
            train_loop_config=arguments,
            torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.train_workers, use_gpu=config.use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(Path(config.storage).resolve() / "ray"),
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise WorkerError(f"training {name} failed: {_first_cause(error)}") from error


def _apply(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _first_cause(error: BaseException) -> str:
    """One line: what the worker that failed first said, with its rank where Ray knows it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, cause = sorted(failures.items())[0]
        return f"rank {rank}: {_last_line(cause)}"
    return _last_line(error)


def _last_line(error: BaseException) -> str:
    """A remote error's text is its whole traceback, whose last line says what is wrong."""
    return str(error).strip().splitlines()[-1].strip()


@contextmanager
def _ray(num_cpus: int) -> Iterator:
    """The ray module, connected; what this call started is stopped at the end. num_cpus: negative for all there are."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    logging.getLogger("ray").setLevel(logging.ERROR)  # it explains itself at every start
    import ray

    local = "RAY_ADDRESS" not in os.environ
    started = not ray.is_initialized()
    if started:
        ray.init(
            address="local" if local else None,
            include_dashboard=False if local else None,
            num_cpus=max(num_cpus, 1) if local and num_cpus >= 0 else None,  # None: Ray counts them
            runtime_env={
                "working_dir": str(ROOT),
                "excludes": _EXCLUDED,
                "env_vars": {"NO_ALBUMENTATIONS_UPDATE": "1"},
            },
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({"_node_ip_address": "127.0.0.1"} if local else {}),
        )
    if _TOKEN.is_file():
        _TOKEN.chmod(0o600)  # Ray leaves it readable for everybody
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
