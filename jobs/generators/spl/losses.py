"""SPL's own loss: L1 with more weight in the hole, on pixels and on features of the teacher."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype


def hole_weighted_l1(predicted: Tensor, target: Tensor, mask: Tensor, hole_weight: float) -> Tensor:
    """Compute the mean over all elements of |predicted - target|, times `hole_weight` in the hole.

    The weights are not divided out: a larger hole makes a larger loss, as in the code.
    predicted, target: (N, C, h, w), any range.
    mask: (N, 1, H, W), 1 = hole; resized to (h, w) by taking the nearest pixel (for H = 4 h the pixels 0, 4, 8, ...).
    hole_weight: weight of a hole element; a known one has 1.
    """
    dtype = wide_dtype(predicted)
    hole = F.interpolate(mask, predicted.shape[-2:], mode="nearest")
    return ((predicted.to(dtype) - target.to(dtype)).abs() * (1 + (hole_weight - 1) * hole)).mean()
