"""Samples and batches in their stored form, uint8: a quarter of the bytes of the tensors that generators take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from files.errors import UserError
from jobs.recipe.batch import Batch
from jobs.training.shared_memory import allocate_bytes


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record with its hole, as stored.

    key: the record's key.
    image: uint8 (H, W, 3).
    mask: uint8 (H, W), 1 = hole.
    maps: column name -> uint8 (H, W).
    seed: the sample's own random number, 63 bits; None in evaluation.
    """

    key: str
    image: np.ndarray
    mask: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class ByteBatch:
    """N samples as stored, in the form in which they go from process to process and to a device.

    image: uint8 (N, H, W, 3).
    mask: uint8 (N, H, W), 1 = hole.
    maps: column name -> uint8 (N, H, W).
    seed: int64 (N,); None in evaluation.
    key: N keys.
    """

    image: Tensor
    mask: Tensor
    maps: Mapping[str, Tensor]
    seed: Tensor | None
    key: tuple[str, ...]

    def pin_memory(self) -> ByteBatch:
        """Return the batch in page-locked memory, from which a GPU copies without waiting."""
        return self.map_tensors(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch that generators take, converted on the device from [0, 255] to [-1, 1], channels first."""
        moved = self.map_tensors(lambda tensor: tensor.to(device, non_blocking=True))
        return Batch.from_bytes(moved.image, moved.mask, moved.maps, seed=moved.seed, key=self.key)

    def map_tensors(self, function: Callable[[Any], Any]) -> ByteBatch:
        """Return a copy in which `function(tensor)` replaces every tensor."""
        return replace(
            self,
            image=function(self.image),
            mask=function(self.mask),
            maps={name: function(tensor) for name, tensor in self.maps.items()},
            seed=None if self.seed is None else function(self.seed),
        )


def collate(samples: Sequence[Sample], images: Tensor | None = None) -> ByteBatch:
    """Stack samples into one batch.

    images: uint8 (N, H, W, 3) that receives the images, see `stack`; None allocates it.

    Raises UserError naming two samples whose sizes differ.
    """
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            raise UserError(
                f"{first.key} is {_describe_size(first)} pixels, {sample.key} {_describe_size(sample)}: one batch "
                "needs one size; set train.samples.crop to at most the smallest side, or ingest with a rule that gives "
                "squares"
            )
    return ByteBatch(
        image=stack([sample.image for sample in samples], images),
        mask=stack([sample.mask for sample in samples]),
        maps={name: stack([sample.maps[name] for sample in samples]) for name in first.maps},
        seed=None if first.seed is None else torch.tensor([sample.seed for sample in samples]),
        key=tuple(sample.key for sample in samples),
    )


def stack(arrays: Sequence[np.ndarray], into: Tensor | None = None) -> Tensor:
    """Stack N equal-shaped uint8 arrays into a tensor (N, ...).

    into: the tensor to fill; None allocates it. An array that already is its own row of `into` is not copied.
    """
    stacked = allocate_bytes(len(arrays), arrays[0].shape) if into is None else into
    for row, array in zip(stacked.numpy(), arrays, strict=True):
        if array.ctypes.data != row.ctypes.data or array.strides != row.strides:
            np.copyto(row, array)
    return stacked


def _describe_size(sample: Sample) -> str:
    return " x ".join(map(str, sample.image.shape[1::-1]))
