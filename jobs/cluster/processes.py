"""Processes of this machine that work for this one.

They are forked from one process that imports the modules of the work once, so that each starts in a moment. A process
that ends early is named with its signal and the last lines that it printed. None outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import connection, forkserver, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from jobs.cluster.last_lines import describe_last_lines
from jobs.cluster.work import GroupError, GroupWork, WorkerError, call_until_given_up, group_timeout

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORKS = get_context("forkserver")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
"""Work is divided among processes, not threads. A training sets its own number."""
_preloaded: list[str] = []  # modules for the fork server
_MAX_ENDS = 3  # how often a task may lose its process
_GRACE_SECONDS = 2.0  # for the other processes of a group to name what they have lost


class Worker:
    """A process of this machine that calls functions.

    name: of the process, as `ps` and messages call it.
    folder: of a file with everything that it prints.
    environment: variables that it has beside those of this process.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._output = folder / f"{name}.txt"
        self.connection, theirs = _FORKS.Pipe()
        self.process = _FORKS.Process(
            target=_serve, args=(theirs, str(self._output), dict(os.environ) | dict(environment)), name=name
        )
        self.process.start()
        theirs.close()  # or the end of the process would not close the connection

    def call(self, function: Callable[[Any], Any], argument: Any) -> None:
        """Let the process call a function. One call at a time."""
        with contextlib.suppress(OSError):  # it has ended, as `answer` will say
            self.connection.send_bytes(pickle.dumps((function, argument)))

    def answer(self) -> Any:
        """Wait for the result of the call. Raises what the function raised, or ProcessEndedError."""
        try:
            is_result, value = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            raise ProcessEndedError(self._describe_end()) from None
        if is_result:
            return value
        raise value

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()

    def _describe_end(self) -> str:
        """Return how the process ended and what it printed last, as text."""
        code = self.process.exitcode
        how = f"with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):  # a number without name
                how = f"by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as when the system runs out of memory"
        text = self._output.read_text(errors="replace") if self._output.is_file() else ""
        return f"its process ended {how}{describe_last_lines(text)}"


class ProcessEndedError(Exception):
    """A process ended before it answered. The message says how."""


class Pool:
    """Processes of this machine that apply functions to items.

    size: number of processes. Each is started when there is work for it.
    modules: names of modules that the processes need.
    environment: returns the variables of the process with a number, counted from 0. A process that replaces another
        has its number.
    """

    def __init__(
        self,
        size: int,
        modules: Sequence[str] = (),
        environment: Callable[[int], Mapping[str, str]] = lambda number: {},
    ) -> None:
        self._size = size
        self._environment = environment
        self._places: dict[str, int] = {}  # name of a process -> its number
        self._folder = tempfile.TemporaryDirectory(prefix="inpaint-")
        self._idle: list[Worker] = []
        self._num_started = 0
        preload(modules)
        start_fork_server()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._idle:
            worker.kill()
        self._idle.clear()
        self._folder.cleanup()

    def map(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Apply a function to every item and yield the results in order of completion.

        An item whose process ends early is given to another process, a few times.
        Raises the first failure as the task raised it, WorkerError for an item that always loses its process.
        """
        waiting = [(item, 0) for item in reversed(items)]
        running: dict[connection.Connection, tuple[Worker, Item, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._size:
                    item, num_ends = waiting.pop()
                    worker = self._take()
                    running[worker.connection] = worker, item, num_ends
                    worker.call(task, item)
                for ready in connection.wait(list(running)):
                    worker, item, num_ends = running[ready]
                    try:
                        result = worker.answer()
                    except ProcessEndedError as error:
                        if num_ends + 1 == _MAX_ENDS:
                            raise WorkerError(f"a task failed {_MAX_ENDS} times: {error}") from error
                        del self._places[worker.name]
                        worker.kill()
                        del running[ready]
                        waiting.append((item, num_ends + 1))
                        continue
                    del running[ready]
                    self._idle.append(worker)
                    yield result
        finally:
            for worker, *_ in running.values():
                worker.kill()

    def _take(self) -> Worker:
        if self._idle:
            return self._idle.pop()
        self._num_started += 1
        name = f"task-worker-{self._num_started}"
        self._places[name] = min(set(range(self._size)) - set(self._places.values()))
        return Worker(name, Path(self._folder.name), {**_ONE_THREAD, **self._environment(self._places[name])})


def run_group(work: GroupWork, size: int, *, use_gpu: bool, collective_seconds: float) -> None:
    """Run the work in a group of processes of this machine.

    size: number of processes. With more than one, they are one process group of torch.distributed, by gloo on CPUs and
        NCCL on GPUs.
    use_gpu: give each process one GPU, or else none.
    collective_seconds: how long a collective may wait.
    Raises GroupError if a process fails; the others are then ended.
    """
    preload([work.function.__module__])
    start_fork_server()
    with tempfile.TemporaryDirectory(prefix="inpaint-") as folder:
        workers = [
            Worker(f"rank-{rank}", Path(folder), _rank_environment(rank, size, use_gpu=use_gpu)) for rank in range(size)
        ]
        try:
            for worker in workers:
                worker.call(_join_group, (work.function, work.arguments, folder, collective_seconds))
            failures = _collect_failures(workers)
        finally:
            for worker in workers:
                worker.kill()
    if failures:
        raise GroupError(failures)


def gpu_environment(number: int) -> dict[str, str]:
    """Return the variables with which a process sees one GPU of those that this process may use."""
    return {"CUDA_VISIBLE_DEVICES": _gpu(number)}


def modules_of(task: Callable) -> list[str]:
    """Return the names of the modules that a process needs for a task: of a function, a partial or a `KeptTask`."""
    function = getattr(task, "opener", task)
    return [getattr(function, "func", function).__module__]


def preload(modules: Sequence[str]) -> None:
    """Name modules that the processes will need. It has an effect until the first process is started."""
    _preloaded.extend(modules)


def start_fork_server() -> None:
    """Start the process that all others are forked from, unless it runs. It imports the preloaded modules."""
    forkserver.set_forkserver_preload(_preloaded)
    # It imports from where this process does; by itself it would look in the present working directory first.
    path = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}
    with _environment(_ONE_THREAD | path):  # libraries read the number of threads when they are imported
        forkserver.ensure_running()


def _collect_failures(workers: Sequence[Worker]) -> dict[int, BaseException]:
    """Wait until all processes have answered, or one has failed and the others had time to. Returns rank -> error."""
    ranks = {worker.connection: rank for rank, worker in enumerate(workers)}
    failures: dict[int, BaseException] = {}
    deadline = None
    while ranks:
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
        ready = connection.wait(list(ranks), timeout)
        if not ready:
            break
        for one in ready:
            rank = ranks.pop(one)
            try:
                workers[rank].answer()
            except BaseException as error:
                failures[rank] = error
                deadline = deadline or time.monotonic() + _GRACE_SECONDS
    return failures


def _rank_environment(rank: int, size: int, *, use_gpu: bool) -> dict[str, str]:
    """Return the variables that torch.distributed and accelerate read, and those that choose devices and interface."""
    environment = {"CUDA_VISIBLE_DEVICES": _gpu(rank) if use_gpu else ""}
    if size > 1:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        environment |= {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        environment |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return environment


def _gpu(number: int) -> str:
    """Return the name of a GPU of those that this process may use."""
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return gpus[number] if gpus else str(number)


def _join_group(argument: tuple[Callable[[dict], None], dict, str, float]) -> None:
    function, arguments, folder, seconds = argument
    if "RANK" in os.environ:
        from torch import distributed

        distributed.init_process_group(
            "nccl" if os.environ["CUDA_VISIBLE_DEVICES"] else "gloo",
            init_method=Path(folder, "meeting").as_uri(),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=timedelta(seconds=group_timeout(seconds, use_gpu=bool(os.environ["CUDA_VISIBLE_DEVICES"]))),
        )
    call_until_given_up(function, arguments)


def _serve(calls: connection.Connection, output: str, environment: Mapping[str, str]) -> None:
    """Call functions until the connection is closed: the main function of every process."""
    os.environ.clear()  # the fork server has the environment of its own start
    os.environ.update(environment)
    # The process that started this one decides what a signal to all processes of a terminal or a job means.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    faulthandler.enable()
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, argument = pickle.loads(calls.recv_bytes())
            calls.send_bytes(_answer(function, argument))
    os._exit(0)  # a process group that lost a member cannot be destroyed


def _answer(function: Callable[[Any], Any], argument: Any) -> bytes:
    """Call the function and return its result, or what it raised, pickled."""
    try:
        return pickle.dumps((True, function(argument)))
    except BaseException as error:
        import traceback

        traceback.print_exc()
        return pickle.dumps((False, _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """Return the error, or a RuntimeError with its text if it cannot be sent to another process."""
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = None
    return error if type(sent) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end this one too."""
    parent = parent_process()
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)
