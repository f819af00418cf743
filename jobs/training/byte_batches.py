"""Batches as they are stored: bytes, a quarter of what generators take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from files.errors import UserError
from jobs.recipe.batch import Batch
from jobs.training.shared_memory import Slots, received, worker_slots


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record with its hole, as on disk: image uint8 (H, W, 3), mask uint8 (H, W), maps uint8 (H, W), by column.

    seed: the sample's own random number, 63 bits; None in evaluation.
    """

    key: str
    image: np.ndarray
    mask: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class ByteBatch:
    """A batch as on disk: a quarter of the bytes to hand from process to process and to a device.

    image: uint8 (N, H, W, 3). mask: uint8 (N, H, W), 1 = hole. maps: uint8 (N, H, W), by column.
    seed: int64 (N,) or None. key: N of them.
    """

    image: Tensor
    mask: Tensor
    maps: Mapping[str, Tensor]
    seed: Tensor | None
    key: tuple[str, ...]

    def pin_memory(self) -> ByteBatch:
        """The same batch in page-locked memory, which a GPU copies from without waiting."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> Batch:
        """The batch that generators take, made on the device: [0, 255] to [-1, 1], channels first."""
        there = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        return Batch.from_bytes(there.image, there.mask, there.maps, seed=there.seed, key=self.key)

    def _each(self, function: Callable[[Any], Any]) -> ByteBatch:
        return replace(
            self,
            image=function(self.image),
            mask=function(self.mask),
            maps={name: function(tensor) for name, tensor in self.maps.items()},
            seed=None if self.seed is None else function(self.seed),
        )


class Handed:
    """A batch on its way from a loader's worker, by the slots that it lies in; it arrives as a ByteBatch."""

    def __init__(self, batch: ByteBatch, slots: Slots) -> None:
        self._sent = batch._each(slots.handed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._sent,)


def _arrived(sent: ByteBatch) -> ByteBatch:
    return sent._each(received)


def collate(samples: Sequence[Sample], images: Tensor | None = None) -> ByteBatch:
    """One batch of all samples. Raises ValueError naming two samples whose sizes differ.

    images: uint8 (N, H, W, 3) to put their images into; those that lie there already, each at its place, stay.
    """
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            raise UserError(
                f"{first.key} is {_size(first)} pixels, {sample.key} {_size(sample)}: one batch needs one size; set "
                f"train.samples.crop to at most the smallest side, or ingest with a rule that gives squares"
            )
    return ByteBatch(
        image=stack([sample.image for sample in samples], images),
        mask=stack([sample.mask for sample in samples]),
        maps={name: stack([sample.maps[name] for sample in samples]) for name in first.maps},
        seed=None if first.seed is None else torch.tensor([sample.seed for sample in samples]),
        key=tuple(sample.key for sample in samples),
    )


def stack(arrays: Sequence[np.ndarray], into: Tensor | None = None) -> Tensor:
    """One tensor of equal arrays, uint8; `into`, if given, where an array that lies at its place already stays."""
    stacked = byte_block(len(arrays), arrays[0].shape) if into is None else into
    for place, array in zip(stacked.numpy(), arrays, strict=True):
        if array.ctypes.data != place.ctypes.data or array.strides != place.strides:
            np.copyto(place, array)
    return stacked


def byte_block(count: int, shape: Sequence[int]) -> Tensor:
    """An uint8 tensor (count, *shape) to be filled; in a loader's worker in shared memory, which saves a copy."""
    block = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        return block.resize_(count, *shape)
    slots = worker_slots()
    if slots and (slot := slots.take(count * prod(shape))) is not None:
        return slot.view(count, *shape)
    storage = block._typed_storage()._new_shared(count * prod(shape), device="cpu")  # as in torch's default_collate
    return block.new(storage).resize_(count, *shape)


def _size(sample: Sample) -> str:
    return " x ".join(map(str, sample.image.shape[1::-1]))
