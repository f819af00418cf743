"""Run work in this process or on Ray workers: the only file that imports ray.

`RAY_ADDRESS` joins a cluster. Without it, a Ray of this machine alone is started on loopback and stopped again.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from files.code_archive import Code, process_code
from files.environment import QUIET_ENVIRONMENT, set_quiet_environment
from files.errors import UserError
from jobs.cluster.settings import ClusterConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
_SOCKET_BYTES = 107  # longest path of a socket
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"  # as long as Ray's own names


class WorkerError(UserError):
    """Work failed on a worker more often than allowed; the message carries the first cause."""


def map_tasks(task: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int) -> Iterator[Result]:
    """Apply a function to every item and yield the results in order of completion.

    num_workers: how many run at once; 0 runs them in this process and in order, -1 as many as there are cores.
    Raises the first failure as the task raised it; later items are not started.
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
    """Keep Ray and its workers from one `map_tasks` to the next. With 0 workers there is no Ray to keep."""
    if num_workers == 0:
        yield
        return
    with _ray(num_workers):
        yield


@dataclass(frozen=True, kw_only=True)
class GroupWork:
    """The work of one group of training processes.

    function: called with the arguments in every process. With more than one, torch.distributed is initialised there.
        Its arguments also hold "is_preempted", a function that tells whether a node of the group will be taken away.
    arguments: must be picklable.
    batch_shares: the number of processes must divide this number, if it may be chosen from a range.
    is_finished: asked after the function has returned; if it answers False, the group is started again, which does not
        count as a failure.
    fatal_errors: errors after which another start is useless. They are raised as the function raised them.
    consequential_errors: errors of processes that lost another process. That process's own error is the cause.
    """

    function: Callable[[dict], None]
    arguments: dict
    batch_shares: int
    is_finished: Callable[[], bool] = lambda: True
    fatal_errors: tuple[type[Exception], ...] = ()
    consequential_errors: tuple[type[Exception], ...] = ()


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
            cause = _most_telling_cause(error, work)
            if isinstance(cause, work.fatal_errors):
                raise cause from error
            first_cause, failures = first_cause or _last_line(cause), failures + 1
            if failures > config.max_failures:
                if config.worker_range[1] == 0:
                    raise
                starts = f" at the first of {failures} starts" if failures > 1 else ""
                raise WorkerError(f"training {name} failed{starts}: {first_cause}") from error
            log.warning("training %s failed (%s); starting it again", name, _last_line(cause))
            del cause  # it may hold the frames that hold Ray's objects, see `_ray`


def check_gpus(config: ClusterConfig) -> None:
    """Raise WorkerError for GPUs that cannot come; see `find_missing_gpus`."""
    if problem := find_missing_gpus(config):
        raise WorkerError(problem)


def find_missing_gpus(config: ClusterConfig) -> str | None:
    """Return what is wrong if training needs more GPUs than this machine has; None if it has enough.

    Ray would wait a minute for them, and then tell it in its own words. A cluster may still start machines with GPUs,
    so only this machine's own Ray is checked.
    """
    is_elsewhere = config.worker_range[1] > 0 and "RAY_ADDRESS" in os.environ
    if not config.use_gpu or is_elsewhere:
        return None
    import torch  # here, since tasks without training do without it

    needed, found = max(config.worker_range[0], 1), torch.cuda.device_count()
    if found >= needed:
        return None
    few = f"only {found}" if found else "no GPU"
    return (
        f"cluster.use_gpu is true, but torch finds {few} on this machine, and training needs {needed}; set it to "
        "false, lower cluster.train_workers, or join a cluster with RAY_ADDRESS"
    )


def _start_group(work: GroupWork, config: ClusterConfig, name: str) -> None:
    """Run the work once. name: of this start, which no other start has."""
    if config.worker_range[1] == 0:
        work.function(work.arguments)
        return
    storage = config.storage_folder / "ray"
    fitting: Future[None] = Future()

    def fit() -> None:
        try:
            fitting.set_result(_fit(work, config, name, storage))
        except BaseException as error:
            fitting.set_exception(error)

    # In the main thread Ray would put its own signal handlers in place of the stage's.
    threading.Thread(target=fit, name="ray", daemon=True).start()
    try:
        while not wait([fitting], timeout=0.2).done:  # signals are handled in between
            _restore_handler()
        fitting.result()
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)


def _restore_handler() -> None:
    """Put this process's own handler of SIGTERM back.

    Ray's library replaces it by one that calls it and then, three seconds later, aborts the process, even while a
    checkpoint is being saved.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _fit(work: GroupWork, config: ClusterConfig, name: str, storage: Path) -> None:
    with _ray(config.worker_range[1]) as ray:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = {"CPU": 1} if not config.use_gpu else {"CPU": 1, "GPU": 1}
        size = _group_size(config, work.batch_shares, ray.available_resources(), resources)
        trainer = TorchTrainer(
            partial(_on_worker, work.function),
            train_loop_config=work.arguments,
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
                    # The smallest group waits for room. A larger group may find none, if Ray still counted a node that
                    # was just lost: then it fails, and the next start counts again.
                    controller_failure_limit=0 if size > config.worker_range[0] else -1,
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        trainer.fit()


def _on_worker(function: Callable[[dict], None], arguments: dict) -> None:
    import ray.train

    function({**arguments, "is_preempted": lambda: ray.train.get_preemption_info() is not None})


def _group_size(
    config: ClusterConfig, batch_shares: int, available: Mapping[str, float], per_worker: Mapping[str, float]
) -> int:
    """Return the largest allowed number of processes that divides the shares and for which there is room.

    available, per_worker: resource -> amount, as Ray counts them.
    Returns the smallest allowed number if there is room for none; that group then waits for room.
    """
    fewest, most = config.worker_range
    if fewest == most:
        return fewest
    sizes = [size for size in range(fewest, most + 1) if batch_shares % size == 0]
    if not sizes:
        raise WorkerError(
            f"no number of processes from {fewest} to {most} divides the {batch_shares} shares of a batch; "
            "change cluster.train_workers in params.yaml"
        )
    room = min(int(available.get(name, 0) // amount) for name, amount in per_worker.items())
    return max((size for size in sizes if size <= room), default=sizes[0])


def _apply(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _most_telling_cause(error: BaseException, work: GroupWork) -> BaseException:
    """Return the failure of a group that says most: a fatal one first, a consequential one last, then by rank."""
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    # Ray wraps the exception of a worker and keeps the original in the private `_base_exc`.
    raised = {rank: getattr(failure, "_base_exc", failure) for rank, failure in failures.items()}

    def order(rank: int) -> tuple[bool, bool, int]:
        cause = raised[rank]
        return not isinstance(cause, work.fatal_errors), isinstance(cause, work.consequential_errors), rank

    rank = min(raised, key=order)
    if isinstance(raised[rank], work.fatal_errors):
        return raised[rank]
    return WorkerError(f"rank {rank}: {_last_line(raised[rank])}")


def _last_line(error: BaseException) -> str:
    """Return the last line of a message: a remote error's text is its whole traceback, which ends with the message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1].strip()


def _temporary_folder() -> str | None:
    """Return a folder with a short path for Ray's sockets; None leaves the choice to Ray.

    Slurm may set TMPDIR to a path with which the paths of sockets are longer than the system allows.
    Raises WorkerError if there is no such folder.
    """
    chosen = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    if len(os.fsencode(chosen / _SOCKET)) <= _SOCKET_BYTES:
        return None
    short = Path("/tmp")
    if not os.access(short, os.W_OK | os.X_OK):
        raise WorkerError(
            f"TMPDIR is {chosen}, which is too long for Ray's sockets, and /tmp cannot be written to; set TMPDIR to a "
            f"path of at most {_SOCKET_BYTES - len(_SOCKET) - 1} characters"
        )
    return str(short / f"ray-{os.getuid()}")


@contextmanager
def _ray(num_cpus: int) -> Iterator:
    """Connect to Ray and yield its module. Ray is stopped at the end if this call started it.

    num_cpus: CPUs of a Ray that is started here; negative takes all.
    """
    set_quiet_environment()
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # keeps a one-machine Ray on loopback, on Linux too
    logging.getLogger("ray").setLevel(logging.ERROR)  # it prints several lines at every start
    import ray

    started = not ray.is_initialized()
    if started:
        # Frames of an earlier failure may still hold references to objects of the Ray that ran then. This Ray gives its
        # objects the same numbers, so freeing such a reference later would free an object of this Ray.
        gc.collect()
        _connect(ray, num_cpus)
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():
        token.chmod(0o600)  # Ray leaves it readable for every user
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _connect(ray: ModuleType, num_cpus: int) -> None:
    """Join the cluster of RAY_ADDRESS or start a Ray here, and give its workers the code of this process."""
    local = "RAY_ADDRESS" not in os.environ
    code = process_code()
    _tell_differences(code)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "code.zip")
        archive.write_bytes(code.archive)
        ray.init(
            address="local" if local else None,
            include_dashboard=False if local else None,
            num_cpus=max(num_cpus, 1) if local and num_cpus >= 0 else None,  # None: Ray counts them
            runtime_env={"working_dir": str(archive), "env_vars": QUIET_ENVIRONMENT},
            logging_level=logging.ERROR,
            log_to_driver=False,
            # Private arguments: they keep a Ray of this machine alone on loopback, and its sockets in short paths.
            **({"_node_ip_address": "127.0.0.1", "_temp_dir": _temporary_folder()} if local else {}),
        )


@cache  # a training may start Ray several times
def _tell_differences(code: Code) -> None:
    """Log which code of the workers is not as git has it."""
    if differences := code.describe_differences():
        log.warning("workers get the code of this checkout, which differs from its commit: %s", differences)
