"""Requests to save and stop, and the agreement of all processes on the step after which they do.

A request is a file in the run's storage: the stage writes it when it gets a signal, `python -m pipeline stop` by hand
or from a node's shutdown hook. A notice that a node will be taken away counts as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from jobs.recipe.collectives import num_processes

RESUMABLE = 75
"""The exit code of a training that was stopped and goes on when it is started again: EX_TEMPFAIL of sysexits.h."""

_LOOK_SECONDS = 0.2  # a shared file system should not be asked at every step
_ASK_SECONDS = 5.0  # a notice of preemption comes minutes ahead


def stop_mark(storage: Path) -> Path:
    """The file whose presence asks the training in this storage to save and stop."""
    return storage / "stop"


class StopRequests:
    """Whether all processes save and stop after the step in hand; use `ask` before a step and `agreed` after it.

    storage: of the run, seen by rank 0. is_preempted: asked in all processes alike, whether a node will be taken away.
    The answers travel while the step is computed, so that nobody waits for them.
    """

    def __init__(self, storage: Path, rank: int, is_preempted: Callable[[], bool] | None, timeout: float) -> None:
        self._mark = stop_mark(storage)
        self._rank = rank
        self._is_preempted = is_preempted
        self._timeout = timedelta(seconds=timeout)
        # Groups of their own: messages of the first cross those of the gradients in any order; the second says nothing
        # until a message has failed, since a connection that has waited in vain is closed and would name nobody.
        self._group, self._roll_call = (
            [distributed.new_group(backend="gloo", timeout=self._timeout) for _ in range(2)]
            if num_processes() > 1
            else (None, None)
        )
        self._looked = self._asked = time.monotonic()
        self._answers = torch.zeros(2, dtype=torch.int32)  # stop; ask about preemption
        self._message: distributed.Work | None = None

    def ask(self) -> None:
        """Look for a request, at most a few times a second, and tell the others."""
        self._answers.zero_()
        now = time.monotonic()
        if self._rank == 0:
            if now - self._looked >= _LOOK_SECONDS:
                self._looked = now
                self._answers[0] = self._mark.exists()
            if self._is_preempted and now - self._asked >= _ASK_SECONDS:
                self._asked = now
                self._answers[1] = 1
        if self._group is not None:
            self._message = distributed.broadcast(self._answers, src=0, group=self._group, async_op=True)

    def agreed(self) -> bool:
        """Whether to stop now: the same answer in every process."""
        if self._message is not None:
            self._message.wait()
        stop, ask = self._answers.tolist()
        return bool(stop) or bool(ask and self._is_preempted())

    def name_absent(self) -> str:
        """After a collective has failed: which processes do not answer, as far as this one can tell."""
        if self._roll_call is None:
            return ""
        try:
            distributed.monitored_barrier(self._roll_call, timeout=timedelta(seconds=3), wait_all_ranks=True)
        except RuntimeError as error:
            return str(error).strip().splitlines()[0]
        return ""
