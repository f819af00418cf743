"""Shared memory in which a loader's workers hand batches over, used again once nobody holds a batch any more.

By itself torch hands over every tensor in fresh shared memory, whose pages the system has to make, by a connection
made for this one tensor: together a fifth of the time that decoding takes.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import multiprocessing
import os
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

WORKER_BYTES = 2**28  # of addresses; memory is only taken where batches have lain
MAX_SLOTS = 64  # of a worker
_SMALL_BYTES = 2**12  # goes with the message itself

log = logging.getLogger(__name__)

_numbers = itertools.count()
# Of this process, by the number that workers send.
_open: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class _Slot:
    """Where a tensor lies, and the place of its mark."""

    start: int
    bytes: int
    mark: int


class Slots:
    """Memory that this process shares with the workers that are forked from it; each takes slots of its own part.

    A slot that a tensor was put into is free again when the last tensor upon it is gone in the process that received
    it. Make it before the workers, for them alone, and keep it as long as they live.
    """

    def __init__(self, num_workers: int, worker_bytes: int) -> None:
        self._worker_bytes = worker_bytes
        self._memory = np.frombuffer(mmap.mmap(-1, num_workers * worker_bytes), np.uint8)
        self._is_lent = np.frombuffer(mmap.mmap(-1, num_workers * MAX_SLOTS), np.bool_)
        self._slots: list[_Slot] = []  # of this worker
        self._number = next(_numbers)
        _open[self._number] = self

    def take(self, count: int) -> Tensor | None:
        """In a worker: uint8 (count,) to be filled and handed over; None when its part is full."""
        for slot in self._slots:
            if slot.bytes == count and not self._is_lent[slot.mark]:
                break
        else:
            worker, last = get_worker_info().id, self._slots[-1] if self._slots else None
            start = _next_page(last.start + last.bytes) if last else worker * self._worker_bytes
            if start + count > (worker + 1) * self._worker_bytes or len(self._slots) == MAX_SLOTS:
                return None
            slot = _Slot(start, count, worker * MAX_SLOTS + len(self._slots))
            self._slots.append(slot)
        self._is_lent[slot.mark] = True
        return torch.from_numpy(self._memory[slot.start : slot.start + count])

    def handed(self, tensor: Tensor) -> Any:
        """In a worker: what to send in place of a contiguous tensor; `received` makes it one again."""
        start = tensor.data_ptr() - self._memory.ctypes.data
        for slot in self._slots:
            if slot.start == start and slot.bytes == tensor.nbytes and tensor.dtype == torch.uint8:
                return self._number, slot, tuple(tensor.shape)
        return tensor.numpy() if tensor.nbytes <= _SMALL_BYTES else tensor

    def _lent(self, slot: _Slot, shape: tuple[int, ...]) -> Tensor:
        array = self._memory[slot.start : slot.start + slot.bytes]
        weakref.finalize(array, self._free, slot.mark, os.getpid()).atexit = False  # the tensor keeps the array
        return torch.from_numpy(array).view(shape)

    def _free(self, mark: int, process: int) -> None:
        if os.getpid() == process:  # and not one that was forked with the array
            self._is_lent[mark] = False


def received(sent: Any) -> Tensor:
    """The tensor that a worker's `handed` was given."""
    if isinstance(sent, tuple):
        number, slot, shape = sent
        return _open[number]._lent(slot, shape)
    return torch.from_numpy(sent) if isinstance(sent, np.ndarray) else sent


def worker_slots() -> Slots | None:
    """Of the worker that this process is: its data set's `slots`."""
    return getattr(getattr(get_worker_info(), "dataset", None), "slots", None)


def slots_for(num_workers: int) -> Slots | None:
    """Slots for a loader; None where its workers are not forked, and so share no memory, and where there is too little.

    Batches are then handed over as torch does it.
    """
    if not num_workers or multiprocessing.get_start_method() != "fork":
        return None
    try:
        return Slots(num_workers, WORKER_BYTES)
    except OSError as error:
        log.warning("no %d bytes for %d loader workers (%s): they are slower", WORKER_BYTES, num_workers, error)
        return None


def _next_page(place: int) -> int:
    return -(-place // mmap.PAGESIZE) * mmap.PAGESIZE
