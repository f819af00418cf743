"""Context Encoder's own loss: squared error in the hole."""

from __future__ import annotations

from torch import Tensor

from jobs.recipe.collectives import ratio


def reconstruction_in_hole(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the elements of the batch's holes; 0 where there is no hole at all.

    Pathak et al., CVPR 2016, Eq. 1, normalised by the size of the holes.
    prediction, target: (N, 3, H, W) in [-1, 1]; mask: (N, 1, H, W), 1 = hole.
    """
    error = (mask * (prediction - target)).square().sum()
    return ratio(error, prediction.shape[1] * mask.sum(), at_least=1)
