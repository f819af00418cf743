"""Requests to save and stop, and the agreement of all processes on the step after which they do.

A request is a file in the run folder. The stage writes it when it gets a signal; `python -m pipeline stop` writes it by
hand or from a node's shutdown hook. A notice that a node will be taken away counts as a request.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from files.errors import UserError
from jobs.recipe.collectives import num_processes

RESUMABLE = 75
"""Exit code of a training that was stopped and can be continued: EX_TEMPFAIL of sysexits.h."""

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2  # a shared file system should not be asked at every step
_NOTICE_SECONDS = 5.0  # a notice of preemption comes minutes ahead


class StoppedError(UserError):
    """The training was asked to stop and has saved its state. The same command continues it."""

    exit_code = RESUMABLE


@contextlib.contextmanager
def request_stop_on_signals(request: Path) -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into a request to stop, and ignore the loss of the terminal, until the context ends.

    request: file to create. A request of an earlier run is removed first.

    The second signal raises KeyboardInterrupt at once. Outside the main thread, which alone can handle signals, only
    the old request is removed.
    """
    request.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def create_request(number: int, frame: object) -> None:
        if request.exists():
            raise KeyboardInterrupt
        request.touch()
        with contextlib.suppress(OSError):  # the terminal may be gone
            if log.isEnabledFor(logging.WARNING):  # not with --quiet
                print("saving, then stopping; send the signal again to stop at once", file=sys.stderr, flush=True)

    handlers = {signal.SIGTERM: create_request, signal.SIGINT: create_request, signal.SIGHUP: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequests:
    """Let all processes stop after the same step.

    1. Before a step all call `broadcast`: rank 0 looks for a request and sends the answer, in the background.
    2. After the step all call `is_stop_agreed`: it waits for the answer, which is the same for all.

    request: file whose presence is a request; only rank 0 has to see it.
    is_preempted: returns whether a node will be taken away, the same in all processes; None if nothing can tell.
    timeout: how long to wait for the other processes, in seconds.
    """

    def __init__(self, request: Path, rank: int, is_preempted: Callable[[], bool] | None, timeout: float) -> None:
        self._request = request
        self._rank = rank
        self._is_preempted = is_preempted
        # The answers have a group of their own, since they cross the messages of the gradients in any order.
        self._answers_group = None
        if num_processes() > 1:
            self._answers_group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._looked = self._noticed = time.monotonic()
        self._answers = torch.zeros(2, dtype=torch.int32)  # stop; ask `is_preempted`
        self._message: distributed.Work | None = None

    def broadcast(self) -> None:
        """Look for a request, at most a few times a second, and start to send the answer to all processes."""
        self._answers.zero_()
        if self._rank == 0:
            self._look()
        if self._answers_group is not None:
            self._message = distributed.broadcast(self._answers, src=0, group=self._answers_group, async_op=True)

    def is_stop_agreed(self) -> bool:
        """Return whether to stop now, the same in every process."""
        if self._message is not None:
            self._message.wait()
        is_requested, ask_preempted = self._answers.tolist()
        return bool(is_requested) or bool(ask_preempted and self._is_preempted())

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._answers[0] = self._request.exists()
        if self._is_preempted and now - self._noticed >= _NOTICE_SECONDS:
            self._noticed = now
            self._answers[1] = 1
