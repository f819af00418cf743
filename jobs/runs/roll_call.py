"""Find which process of a training the others wait for, also while main threads wait for a GPU or for an exchange.

Every process has a thread that answers the roll calls of the others. It uses the store through which the process group
was formed, and neither the training's thread nor the group's exchanges.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from torch import distributed
from torch.distributed import distributed_c10d

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # from one look at the store to the next
_ANSWER_SECONDS = 3.0  # a process that has not answered until then does not answer
_CALLS = "roll call/number"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """How far a process is.

    activity: what it does, such as "computes step 9".
    exchanges: number of exchanges of the process group that it has entered.
    place: innermost line of this project in which its training is, "file:line".
    seconds: time since activity or exchanges changed.
    """

    rank: int
    activity: str
    exchanges: int
    place: str
    seconds: float

    def __str__(self) -> str:
        return f"rank {self.rank} {self.activity} at {self.place}, for {self.seconds:.0f} s now"


class RollCall:
    """Answer the roll calls of the other processes, and call the roll when this process waits for too long.

    It is made by the thread that trains, in every process of a group, which must have more than one.

    rank: of this process.
    world_size: number of processes.
    seconds: once this process has not moved on for so long, and another one is behind it or does not answer, it gives
        up.
    give_up(text): called from the thread of the roll call with the ranks that are behind.
    """

    def __init__(self, rank: int, world_size: int, seconds: float, give_up: Callable[[str], None]) -> None:
        self._rank = rank
        self._world_size = world_size
        self._seconds = seconds
        self._give_up = give_up
        self._trainer = threading.get_ident()
        self._activity = "starts"
        self._seen, self._moved = ("", 0), time.monotonic()
        self._answered = 0
        # PyTorch has no public name for the store of the default group.
        self._store = distributed_c10d._get_default_store().clone()
        self._store.set_timeout(timedelta(seconds=_ANSWER_SECONDS))
        self._store.add(_CALLS, 0)
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="roll-call", daemon=True).start()

    def note(self, activity: str) -> None:
        """Note what this process does from now on, such as "computes step 9"."""
        self._activity = activity

    def close(self) -> None:
        """Answer no more. After a failure it is left open, so that the others hear who failed."""
        self._closed.set()

    def find_absent(self) -> str:
        """Ask all processes how far they are, which takes a few seconds.

        Returns those that do not answer or are behind this one, as text; "" if there is none.
        """
        try:
            answers = self._ask()
        except RuntimeError as error:  # of the store, which is in the process of rank 0 or in a file
            log.warning("the store of the process group does not answer: %s", error)
            return "rank 0 does not answer"
        own = self._answer()
        silent = [rank for rank in range(self._world_size) if rank not in answers and rank != self._rank]
        behind = [answer for answer in answers.values() if answer.exchanges < own.exchanges]
        texts = [f"rank {rank} does not answer" for rank in silent] + [str(answer) for answer in behind]
        return "; ".join(texts)

    def _watch(self) -> None:
        asked = time.monotonic()
        while not self._closed.wait(_LOOK_SECONDS):
            own = self._answer()
            try:
                self._answer_call()
            except RuntimeError:
                log.debug("the store of the process group does not answer", exc_info=True)
            if own.seconds < self._seconds or time.monotonic() - asked < self._seconds:
                continue
            absent, asked = self.find_absent(), time.monotonic()
            if absent and self._answer().seconds > own.seconds and not self._closed.is_set():
                self._give_up(absent)
                asked = float("inf")

    def _ask(self) -> dict[int, _Answer]:
        """Return the answers of the processes, by rank, this one's among them."""
        number = self._store.add(_CALLS, 1)
        keys = {rank: _key(number, rank) for rank in range(self._world_size)}
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline and not self._store.check(list(keys.values())):
            self._answer_call()  # others may call the roll at the same time
            time.sleep(_LOOK_SECONDS / 5)
        given = {rank: self._store.get(key) for rank, key in keys.items() if self._store.check([key])}
        return {rank: _Answer(**json.loads(answer)) for rank, answer in given.items()}

    def _answer_call(self) -> None:
        """Answer the roll calls that are not answered yet."""
        number = int(self._store.get(_CALLS))
        for call in range(self._answered + 1, number + 1):
            self._store.set(_key(call, self._rank), json.dumps(asdict(self._answer())))
        self._answered = number

    def _answer(self) -> _Answer:
        exchanges = distributed.group.WORLD._get_sequence_number_for_group()
        seen, now = (self._activity, exchanges), time.monotonic()
        if seen != self._seen:
            self._seen, self._moved = seen, now
        return _Answer(
            rank=self._rank,
            activity=self._activity,
            exchanges=exchanges,
            place=_find_place(self._trainer),
            seconds=now - self._moved,
        )


def _key(number: int, rank: int) -> str:
    return f"roll call/{number}/{rank}"


def _find_place(thread: int) -> str:
    """Return the innermost line of this project in which a thread is, as "file:line"."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(_ROOT / "jobs") or file.is_relative_to(_ROOT / "datasets"):
            return f"{file.relative_to(_ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"
