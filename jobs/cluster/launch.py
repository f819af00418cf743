"""Where work runs: in this process, or on Ray workers. The only file that imports ray.

`RAY_ADDRESS` joins a cluster; without it a Ray of this machine alone is started, on loopback, and stopped again.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from files.checkout import ROOT
from files.errors import UserError
from jobs.cluster.settings import ClusterConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
# The code is shipped to workers, without what git ignores, .git and .venv, which Ray leaves out by itself.
_EXCLUDED = [".dvc"]
_TOKEN = Path.home() / ".ray" / "auth_token"
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps a one-machine Ray on loopback, on Linux too
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing calls home
}


class WorkerError(UserError):
    """Work failed on a worker more often than allowed; the message carries the first cause."""


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
def keep_ray(num_workers: int) -> Iterator[None]:
    """Keep Ray and its workers from one `map_tasks` to the next; with 0 workers there is nothing to keep."""
    if num_workers == 0:
        yield
        return
    with _ray(num_workers):
        yield


def train_workers(
    work: Callable[[dict], None],
    arguments: dict,
    config: ClusterConfig,
    *,
    name: str,
    shares: int,
    is_over: Callable[[], bool] = lambda: True,
    final: tuple[type[Exception], ...] = (),
    secondary: tuple[type[Exception], ...] = (),
) -> None:
    """Run `work(arguments)` on every training process, as one group that is started again after a failure.

    Inside, torch.distributed is initialised when there is more than one process, and arguments["is_preempted"] tells
    whether a node of the group will be taken away. shares: what a range's number of processes must divide.
    is_over: whether work that returned has nothing left to do; if not, it is started again without counting as failed.
    final: errors after which another try is useless, raised as they are. secondary: errors of processes that only lost
    another one, whose own error says more.
    Raises WorkerError with the first cause once `max_failures` restarts are used up; in this process, the last error.
    """
    first, failures = "", 0
    while True:
        try:
            _attempt(work, arguments, config, f"{name}-{uuid.uuid4().hex[:8]}", shares)
            if is_over():
                return
        except Exception as error:
            cause = _first_cause(error, final, secondary)
            if isinstance(cause, final):
                raise cause from error
            first, failures = first or _said(cause), failures + 1
            if failures > config.max_failures:
                if config.worker_range[1] == 0:
                    raise
                tries = f" at the first of {failures} starts" if failures > 1 else ""
                raise WorkerError(f"training {name} failed{tries}: {first}") from error
            log.warning("training %s failed (%s); starting it again", name, _said(cause))
            del cause  # it may hold the frames that hold Ray's objects, see `_ray`


def _attempt(work: Callable[[dict], None], arguments: dict, config: ClusterConfig, name: str, shares: int) -> None:
    if config.worker_range[1] == 0:
        work(arguments)
        return
    storage = config.storage_folder / "ray"
    fitting: Future[None] = Future()

    def fit() -> None:
        try:
            fitting.set_result(_fit(work, arguments, config, name, shares, storage))
        except BaseException as error:
            fitting.set_exception(error)

    # Not in the main thread, where Ray would put its own signal handlers in place of the stage's.
    threading.Thread(target=fit, name="ray", daemon=True).start()
    try:
        while not wait([fitting], timeout=0.2).done:  # signals are handled in between
            _keep_handler()
        fitting.result()
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)


def _keep_handler() -> None:
    """Put this process's own handler of SIGTERM back: Ray's library takes its place and, having called it, aborts the
    process three seconds later, whatever is still being saved."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _fit(
    work: Callable[[dict], None], arguments: dict, config: ClusterConfig, name: str, shares: int, storage: Path
) -> None:
    with _ray(config.worker_range[1]) as ray:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = {"CPU": 1} if not config.use_gpu else {"CPU": 1, "GPU": 1}
        size = _group_size(config, shares, ray.available_resources(), resources)
        trainer = TorchTrainer(
            partial(_on_worker, work),
            train_loop_config=arguments,
            torch_config=TorchConfig(
                backend="nccl" if config.use_gpu else "gloo", timeout_s=round(config.collective_seconds)
            ),
            scaling_config=ScalingConfig(
                num_workers=size,
                use_gpu=config.use_gpu,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=str(storage),
                failure_config=FailureConfig(
                    max_failures=0,
                    max_preemption_failures=0,
                    # The smallest group waits for room. A larger one that finds none, because a node that was just
                    # lost was still counted, fails, and the next start counts again.
                    controller_failure_limit=0 if size > config.worker_range[0] else -1,
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        trainer.fit()


def _on_worker(work: Callable[[dict], None], arguments: dict) -> None:
    import ray.train

    work({**arguments, "is_preempted": lambda: ray.train.get_preemption_info() is not None})


def _group_size(
    config: ClusterConfig, shares: int, available: Mapping[str, float], per_worker: Mapping[str, float]
) -> int:
    """The largest allowed group that divides the shares and for which there is room; the smallest waits for room."""
    fewest, most = config.worker_range
    if fewest == most:
        return fewest
    sizes = [size for size in range(fewest, most + 1) if shares % size == 0]
    if not sizes:
        raise WorkerError(
            f"no number of processes from {fewest} to {most} divides the {shares} shares of a batch; "
            "change cluster.train_workers in params.yaml"
        )
    room = min(int(available.get(name, 0) // amount) for name, amount in per_worker.items())
    return max((size for size in sizes if size <= room), default=sizes[0])


def _apply(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _first_cause(
    error: BaseException, final: tuple[type[Exception], ...], secondary: tuple[type[Exception], ...]
) -> BaseException:
    """Of a group's failures the one that says most: a final one, else one that did not only lose another process."""
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    raised = {rank: getattr(failure, "_base_exc", failure) for rank, failure in failures.items()}
    rank = min(raised, key=lambda r: (not isinstance(raised[r], final), isinstance(raised[r], secondary), r))
    return raised[rank] if isinstance(raised[rank], final) else WorkerError(f"rank {rank}: {_said(raised[rank])}")


def _said(error: BaseException) -> str:
    """One line: a remote error's text is its whole traceback, whose last line says what is wrong."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1].strip()


@contextmanager
def _ray(num_cpus: int) -> Iterator:
    """The ray module, connected; what this call started is stopped at the end. num_cpus: negative for all there are."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    logging.getLogger("ray").setLevel(logging.ERROR)  # it explains itself at every start
    import ray

    local = "RAY_ADDRESS" not in os.environ
    started = not ray.is_initialized()
    if started:
        # References that an earlier session has left in failed frames name objects by numbers that begin anew: freed
        # later, they would take this session's.
        gc.collect()
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
