"""Run work on the workers of a Ray cluster: the only file that imports ray.

`RAY_ADDRESS` names the cluster. "local" starts a Ray of this machine alone, on loopback, which is stopped again.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from files.code_archive import Code, process_code
from files.environment import QUIET_ENVIRONMENT, set_quiet_environment
from jobs.cluster.gpus import NO_GPUS
from jobs.cluster.last_lines import describe_last_lines
from jobs.cluster.network import find_interface, passed_on
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import (
    GroupError,
    GroupWork,
    WorkerError,
    call_until_given_up,
    group_size,
    group_timeout,
    last_line,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
_READ_BYTES = 100_000  # of what a lost worker printed
_READ_SECONDS = 20.0
_SOCKET_BYTES = 107  # longest path of a socket
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"  # as long as Ray's own names


def map_on_cluster(
    task: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int | None
) -> Iterator[Result]:
    """Apply a function to every item on the cluster and yield the results in order of completion.

    num_workers: how many run at once; None = as many as the cluster has CPUs.
    Raises the first failure as the task raised it; later items are not started. Raises WorkerError for an item that
    always loses its process.
    """
    with connect_ray(num_workers) as ray:
        num_workers = num_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=3, runtime_env={"env_vars": NO_GPUS})(_apply)
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
            except ray.exceptions.WorkerCrashedError as error:
                raise WorkerError(f"a task lost its process several times: {last_line(error)}") from error
            yield result


def map_on_actors(
    make_task: Callable[[int], Callable[[Item], Result]],
    items: Sequence[Item],
    *,
    num_workers: int | None,
    use_gpu: bool,
) -> Iterator[Result]:
    """Apply a task that keeps state to every item, on actors. Yields the results in order of completion.

    make_task: returns the task for actors that may use a number of cores.
    num_workers: number of actors; None = as many as the cluster has CPUs, or GPUs with `use_gpu`.
    use_gpu: give each actor a GPU, and its share of the cores for its own threads.
    Raises the first failure as the task raised it, WorkerError for an item that always loses its actor and for a
    cluster without GPUs.
    """
    with connect_ray(num_workers) as ray:
        cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        if use_gpu and not gpus:
            raise WorkerError("cluster.use_gpu is true, but the cluster has no GPU; set it to false")
        most = gpus if use_gpu else max(1, cpus)
        size = min(num_workers or most, most, len(items))
        task = make_task(max(1, cpus // gpus) if use_gpu else 1)
        options = {"num_gpus": 1} if use_gpu else {"runtime_env": {"env_vars": NO_GPUS}}
        make_actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3, **options)(_Actor).remote
        waiting = list(reversed(items))
        # An actor gets its first item once it runs: one for which there is no room then keeps no item waiting.
        starting = {actor.start.remote(): actor for actor in [make_actor() for _ in range(size)]}
        running, num_left = dict(starting), len(items)
        while num_left:
            done = ray.wait(list(running), num_returns=1)[0][0]
            actor = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError as error:
                raise WorkerError(f"a task lost its process several times: {last_line(error)}") from error
            if waiting:
                running[actor.apply.remote(task, waiting.pop())] = actor
            if done not in starting:
                num_left -= 1
                yield result


class _Actor:
    """A process of the cluster that applies tasks. It keeps what the tasks keep."""

    def start(self) -> None:
        """Do nothing; it returns once the process runs."""

    def apply(self, task: Callable[[Item], Result], item: Item) -> Result:
        """Apply a task."""
        return task(item)


def run_group_on_cluster(work: GroupWork, config: ClusterConfig, name: str) -> None:
    """Run the work once, by Ray Train.

    name: of this start, which no other start has.
    Raises GroupError if processes of the group fail.
    """
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
    with connect_ray(config.worker_range[1] * config.cpus_per_worker) as ray:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = {"CPU": config.cpus_per_worker} | ({"GPU": 1} if config.use_gpu else {})
        available = ray.available_resources()
        room = min(int(available.get(name, 0) // amount) for name, amount in resources.items())
        size = group_size(config, work.batch_shares, room)
        trainer = TorchTrainer(
            partial(_on_worker, work.function),
            train_loop_config=work.arguments,
            torch_config=TorchConfig(
                backend="nccl" if config.use_gpu else "gloo",
                timeout_s=round(group_timeout(config.collective_seconds, use_gpu=config.use_gpu)),
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
                # Ray itself hides no GPU from workers that ask for none.
                worker_runtime_env={} if config.use_gpu else {"env_vars": NO_GPUS},
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise _group_error(ray, error) from None


def _on_worker(function: Callable[[dict], None], arguments: dict) -> None:
    import ray.train

    # Gloo would take the address of the host's name, which often is one of the loopback.
    if interface := find_interface(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    extra = {"is_preempted": lambda: ray.train.get_preemption_info() is not None}
    call_until_given_up(function, {**arguments, **extra})


def _apply(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _group_error(ray: ModuleType, error: Exception) -> Exception:
    """Return the error of Ray Train as a GroupError, or any other as it is.

    Of a process that ended, the error says how and what it printed last.
    """
    failures = getattr(error, "worker_failures", None)
    if not failures:  # before all processes had begun, Ray Train does not say which rank it was
        end = _describe_end(ray, error)
        return WorkerError(f"a process ended: {end}") if end else error
    causes = {}
    for rank, failure in failures.items():
        # Ray wraps the exception of a worker and keeps the original in the private `_base_exc`.
        causes[rank] = getattr(failure, "_base_exc", failure)
        if end := _describe_end(ray, failure):
            causes[rank] = WorkerError(f"its process ended: {end}")
    return GroupError(causes)


def _describe_end(ray: ModuleType, failure: Exception) -> str:
    """Return how the process of a failed worker ended and what it printed last; "" if it did not end.

    failure: of Ray. Its text holds the process and the address of its node. A task there reads the process's output.
    """
    found = re.search(r"\bpid: (\d+)\n.*\bip: (\S+)\n.*Worker exit detail: (.+)", str(failure), re.DOTALL)
    if not found:
        return ""
    process, address, detail = found.groups()
    output = ""
    for node in (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == address):
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        read = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(_read_output)
        try:
            output += ray.get(read.remote(process), timeout=_READ_SECONDS)
        except Exception:  # such as of a node that has gone since
            log.debug("the last lines of process %s at %s were not read", process, address, exc_info=True)
    return detail.split(" Some common causes")[0].splitlines()[0].rstrip(".") + describe_last_lines(output)


def _read_output(process: str) -> str:
    """Return the last of what a process of this node's Ray printed, its errors after the rest."""
    logs = Path("/dev/stderr").resolve().parent  # Ray has all processes of a node print into one folder
    files = [path for kind in ("out", "err") for path in logs.glob(f"worker-*-{process}.{kind}")]
    return "\n".join(path.read_bytes()[-_READ_BYTES:].decode(errors="replace") for path in files)


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
def connect_ray(num_cpus: int | None) -> Iterator[Any]:
    """Connect to Ray and yield its module. Ray is stopped at the end if this call started it.

    num_cpus: CPUs of a Ray that is started here; None takes all.
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


def _connect(ray: ModuleType, num_cpus: int | None) -> None:
    """Join the cluster of RAY_ADDRESS or start a Ray here, and give its workers the code of this process."""
    local = os.environ["RAY_ADDRESS"] == "local"
    code = process_code()
    _tell_differences(code)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "code.zip")
        archive.write_bytes(code.archive)
        ray.init(
            address="local" if local else None,
            include_dashboard=False if local else None,
            num_cpus=max(num_cpus, 1) if local and num_cpus is not None else None,  # None: Ray counts them
            runtime_env={"working_dir": str(archive), "env_vars": QUIET_ENVIRONMENT | passed_on(os.environ)},
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
