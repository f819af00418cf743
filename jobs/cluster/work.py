"""Work for several processes, and its failures: the same on this machine and on a cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from pathlib import Path

from files.errors import UserError
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.sharing import divide

_WATCHDOG_SECONDS = 60.0


class WorkerError(UserError):
    """Work failed on a worker more often than allowed; the message carries the first cause."""


@dataclass(frozen=True, kw_only=True)
class GroupWork:
    """The work of one group of training processes.

    function: called with the arguments in every process. With more than one, torch.distributed is initialised there.
        In a group its arguments also hold "give_up", see `call_until_given_up`; on a cluster, "is_preempted" as well, a
        function that tells whether a node of the group will be taken away.
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


class GroupError(Exception):
    """Processes of a group failed.

    failures: rank -> its error.
    """

    def __init__(self, failures: dict[int, BaseException]) -> None:
        super().__init__(f"ranks that failed: {', '.join(map(str, sorted(failures)))}")
        self.failures = failures


def call_until_given_up(function: Callable[[dict], None], arguments: dict) -> None:
    """Call a function in a thread of its own, so that another thread can end the call.

    arguments: of the function, which also gets "give_up", a function that takes an error. Called from any thread, it
        lets this call raise the error at once. The process must then be ended, as the function may still run.
    Raises what the function raises.
    """
    outcome: Future[None] = Future()

    def give_up(error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):  # it has returned or raised meanwhile
            outcome.set_exception(error)

    def call() -> None:
        try:
            function({**arguments, "give_up": give_up})
        except BaseException as error:
            give_up(error)
        else:
            with contextlib.suppress(InvalidStateError):
                outcome.set_result(None)

    threading.Thread(target=call, name="training", daemon=True).start()
    outcome.result()


def most_telling_cause(error: BaseException, work: GroupWork) -> BaseException:
    """Return the failure of a group that says most: a fatal one first, a consequential one last, then by rank.

    A failure that is not fatal is returned as a WorkerError that names the rank.
    """
    if not isinstance(error, GroupError):
        return error

    def order(rank: int) -> tuple[bool, bool, int]:
        cause = error.failures[rank]
        return not isinstance(cause, work.fatal_errors), isinstance(cause, work.consequential_errors), rank

    rank = min(error.failures, key=order)
    cause = error.failures[rank]
    if isinstance(cause, work.fatal_errors):
        return cause
    return WorkerError(f"rank {rank}: {last_line(cause)}")


def last_line(error: BaseException) -> str:
    """Return the last line of a message: a remote error's text is its whole traceback, which ends with the message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1].strip()


def group_size(config: ClusterConfig, batch_shares: int, room: int) -> int:
    """Return the largest allowed number of processes that divides the shares and for which there is room.

    config: its range of numbers is narrowed by `sharing.divide`.
    room: number of processes for which there is room.
    Returns the smallest allowed number if there is room for none; that group then waits for room.
    """
    fewest, most = divide(config.worker_range, batch_shares)
    if fewest == most:
        return fewest
    sizes = [size for size in range(fewest, most + 1) if batch_shares % size == 0]
    return max((size for size in sizes if size <= room), default=sizes[0])


def group_timeout(collective_seconds: float, *, use_gpu: bool) -> float:
    """Return the seconds after which the process group itself gives up.

    The watchdog of NCCL then ends the process. On GPUs the group waits longer than the training's roll call, which
    names the process that is behind.
    """
    return collective_seconds + (_WATCHDOG_SECONDS if use_gpu else 0)


def count_cores() -> int:
    """Return the number of cores that this process may use: of its affinity, and of its container's quota (cgroup v2).

    Returns at least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else multiprocessing.cpu_count()
    try:
        quota = re.fullmatch(r"(\d+) (\d+)\s*", Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii"))
    except OSError:
        return cores
    return max(1, min(cores, int(quota[1]) // int(quota[2]))) if quota else cores
