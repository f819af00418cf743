"""Reuse of the shared memory in which a loader's workers send batches to the training process.

By default torch sends every tensor in new shared memory, whose pages the system has to make, over a connection opened
for that one tensor. Together this costs a fifth of the time that decoding takes. Here a batch travels in slots:

    worker    allocate   marks a free slot as used, or makes a new one; the worker fills it
    worker    export     sends the slot's place instead of the tensor
    trainer   import_    makes a tensor on the slot
    trainer   finalizer  clears the mark when the last tensor on the slot is gone
    worker    allocate   finds the slot free again

A tensor that is in no slot, because they are all used or it is small, is sent as torch sends it.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import multiprocessing
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from files.errors import UserError

WORKER_BYTES = 2**28  # addresses per worker; a page takes memory only once it has been written to
MAX_SLOTS = 64  # per worker
_SMALL_BYTES = 2**12  # at most this much is sent inside the message

log = logging.getLogger(__name__)


class TensorTree(Protocol):
    """A picklable object made of tensors."""

    def map_tensors(self, function: Callable[[Any], Any]) -> Self:
        """Return a copy in which `function(tensor)` replaces every tensor."""


@dataclass(frozen=True)
class _Slot:
    """The place of one tensor.

    start: offset in the shared memory, in bytes.
    mark: index of its mark.
    """

    start: int
    bytes: int
    mark: int


class SharedSlots:
    """Share memory with the workers that are forked from this process.

    num_workers: how many workers use it. Each allocates in a range of its own.
    worker_bytes: size of that range.

    Create it before the workers, for one set of workers, and keep it as long as they live.
    """

    def __init__(self, num_workers: int, worker_bytes: int) -> None:
        self._worker_bytes = worker_bytes
        self._memory = np.frombuffer(mmap.mmap(-1, num_workers * worker_bytes), np.uint8)
        self._is_used = np.frombuffer(mmap.mmap(-1, num_workers * MAX_SLOTS), np.bool_)  # the marks
        self._slots: list[_Slot] = []  # of this worker
        self._number = next(_numbers)
        _open_slots[self._number] = self

    def allocate(self, count: int) -> Tensor | None:
        """In a worker, return an uint8 tensor (count,) to be filled and exported; None if there is no room."""
        for slot in self._slots:
            if slot.bytes == count and not self._is_used[slot.mark]:
                break
        else:
            slot = self._new_slot(count)
            if slot is None:
                return None
        self._is_used[slot.mark] = True
        return torch.from_numpy(self._memory[slot.start : slot.start + count])

    def export(self, tensor: Tensor) -> Any:
        """In a worker, return a small object that `import_` turns into the tensor again.

        tensor: contiguous. It is returned unchanged if it is neither in a slot nor small.
        """
        start = tensor.data_ptr() - self._memory.ctypes.data
        for slot in self._slots:
            if slot.start == start and slot.bytes == tensor.nbytes and tensor.dtype == torch.uint8:
                return self._number, slot, tuple(tensor.shape)
        return tensor.numpy() if tensor.nbytes <= _SMALL_BYTES else tensor

    @staticmethod
    def import_(exported: Any) -> Tensor:
        """In the process that receives it, return the tensor that was given to `export`."""
        if isinstance(exported, tuple):
            number, slot, shape = exported
            return _open_slots[number]._view(slot, shape)
        return torch.from_numpy(exported) if isinstance(exported, np.ndarray) else exported

    def _new_slot(self, count: int) -> _Slot | None:
        worker = get_worker_info().id
        start = worker * self._worker_bytes
        if self._slots:
            start = _round_up_to_page(self._slots[-1].start + self._slots[-1].bytes)
        if start + count > (worker + 1) * self._worker_bytes or len(self._slots) == MAX_SLOTS:
            return None
        self._slots.append(_Slot(start, count, mark=worker * MAX_SLOTS + len(self._slots)))
        return self._slots[-1]

    def _view(self, slot: _Slot, shape: tuple[int, ...]) -> Tensor:
        array = self._memory[slot.start : slot.start + slot.bytes]
        # Every tensor made from the array keeps it alive, views and slices included.
        weakref.finalize(array, self._free, slot.mark, os.getpid()).atexit = False
        return torch.from_numpy(array).view(shape)

    def _free(self, mark: int, process: int) -> None:
        if os.getpid() == process:  # a process forked with the array must not free what this one still holds
            self._is_used[mark] = False


_numbers = itertools.count()
# A worker's message names its slots by number, since they cannot be pickled.
_open_slots: weakref.WeakValueDictionary[int, SharedSlots] = weakref.WeakValueDictionary()


def allocate_bytes(count: int, shape: Sequence[int]) -> Tensor:
    """Return an uninitialised uint8 tensor (count, *shape).

    In a loader's worker it is in shared memory, so that sending it copies nothing.
    """
    empty = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        return empty.resize_(count, *shape)
    slots = _worker_slots()
    if slots and (tensor := slots.allocate(count * prod(shape))) is not None:
        return tensor.view(count, *shape)
    storage = empty._typed_storage()._new_shared(count * prod(shape), device="cpu")  # as torch's default_collate does
    return empty.new(storage).resize_(count, *shape)


class SlotLoader(DataLoader):
    """Load batches through slots that every set of workers has for itself.

    batches: a data set whose `__getitems__(indices)` returns one whole batch, a `TensorTree`.
    options: those of DataLoader, `collate_fn` excepted.
    """

    def __init__(self, batches: Dataset, **options: Any) -> None:
        super().__init__(_SlotDataset(batches), collate_fn=_export_batch, **options)

    def __iter__(self) -> Iterator[Any]:
        slots = self.dataset.slots = _make_slots(self.num_workers)
        return _Batches(super().__iter__(), slots)  # forks the workers


class _Batches:
    """Iterate over a loader's batches, and raise the errors of its workers as they were raised there.

    torch would put the worker's whole traceback into the message.
    slots: those of the workers, kept as long as the workers live.
    """

    def __init__(self, batches: Iterator[Any], slots: SharedSlots | None) -> None:
        self._batches = batches
        self.slots = slots

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if not re.match(r"DataLoader worker \(pid.* (is killed by signal|exited unexpectedly)", str(error)):
                raise
            reason = str(error).splitlines()[0].rstrip(". ")
            raise LoaderError(f"{reason}; if memory is short, lower cluster.loader_workers") from error
        if isinstance(batch, _Failure):
            raise batch.error
        return batch


@dataclass(frozen=True)
class _Failure:
    """An error that a worker sends in place of a batch."""

    error: Exception


class LoaderError(UserError):
    """A process that reads for the training was ended from outside."""


class _SlotDataset(Dataset):
    """Carry the slots into the workers, which inherit their data set."""

    def __init__(self, batches: Dataset) -> None:
        self.batches = batches
        self.slots: SharedSlots | None = None

    def __getitems__(self, indices: Sequence[int]) -> TensorTree | _Failure:
        if get_worker_info() is None:
            return self.batches.__getitems__(indices)
        try:
            return self.batches.__getitems__(indices)
        except (UserError, OSError) as error:  # of a file or of the machine; a defect keeps its traceback
            return _Failure(error)


class _ExportedBatch:
    """Pickle a batch as its exported tensors; unpickling returns the batch itself."""

    def __init__(self, batch: TensorTree, slots: SharedSlots) -> None:
        self._exported = batch.map_tensors(slots.export)

    def __reduce__(self) -> tuple[Any, ...]:
        return _import_batch, (self._exported,)


def _export_batch(batch: TensorTree | _Failure) -> TensorTree | _ExportedBatch | _Failure:
    """Export a batch in a worker that has slots. This is the `collate_fn` of `SlotLoader`."""
    slots = None if isinstance(batch, _Failure) else _worker_slots()
    return _ExportedBatch(batch, slots) if slots else batch


def _import_batch(exported: TensorTree) -> TensorTree:
    return exported.map_tensors(SharedSlots.import_)


def _worker_slots() -> SharedSlots | None:
    """Return the slots of the worker that this process is; None outside a worker of `SlotLoader`."""
    worker = get_worker_info()
    return worker.dataset.slots if worker and isinstance(worker.dataset, _SlotDataset) else None


def _make_slots(num_workers: int) -> SharedSlots | None:
    """Return slots for a set of workers; None if they are not forked, or if the system has too few addresses."""
    if not num_workers or multiprocessing.get_start_method() != "fork":
        return None
    try:
        return SharedSlots(num_workers, WORKER_BYTES)
    except OSError as error:
        log.warning(
            "no %d bytes of shared memory for each of %d loader workers (%s); they send batches more slowly",
            WORKER_BYTES,
            num_workers,
            error,
        )
        return None


def _round_up_to_page(offset: int) -> int:
    return -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
