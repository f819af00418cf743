"""Context Encoder's own losses: squared error, weighted towards the overlap or restricted to the hole."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.collectives import ratio


def overlap_weights(size: int, overlap: int, overlap_weight: float) -> Tensor:
    """The weight of each predicted pixel: overlap_weight on the ring that overlaps known context, 1 inside.

    Pathak et al., CVPR 2016, Sec. 5.1. Returns (1, 1, size, size); the ring is `overlap` pixels wide.
    """
    weights = torch.full((1, 1, size, size), overlap_weight)
    weights[..., overlap : size - overlap, overlap : size - overlap] = 1.0
    return weights


def reconstruction(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over all elements of the weighted squared error; the weights are not normalised.

    prediction, target: (N, 3, H, W) in [-1, 1]; weights: broadcastable to them. The authors' code weights the gradient
    of the plain mean, which is the gradient of this.
    """
    error = (prediction - target).square()
    return error.mean() if weights is None else (weights * error).mean()


def reconstruction_in_hole(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the elements of the batch's holes; 0 where there is no hole at all.

    Pathak et al., CVPR 2016, Eq. 1, normalised by the size of the holes.
    prediction, target: (N, 3, H, W) in [-1, 1]; mask: (N, 1, H, W), 1 = hole.
    """
    error = (mask * (prediction - target)).square().sum()
    return ratio(error, prediction.shape[1] * mask.sum(), at_least=1)
