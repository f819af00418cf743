"""Compute in float32 at least, at any precision of the training."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return float32 for half precision, and the tensor's own type for float32 and float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def widen(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 if it is of half precision."""
    return tensor.to(wide_dtype(tensor))
