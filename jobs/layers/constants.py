"""Constants on a device. A constant that is made in every step would let the host wait for the GPU each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return numbers as a tensor of one dimension, which is made once for each device and type. Do not change it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def placed_like(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that gives the tensor in the device and type of another one, and copies it once for each."""
    copies = lru_cache(maxsize=None)(lambda device, dtype: tensor.to(device, dtype))
    return lambda other: copies(other.device, other.dtype)
