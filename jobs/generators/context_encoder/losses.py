"""Losses of Context Encoder alone: squared errors of the image, of the hole, and of the predicted square."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.recipe.collectives import ratio


def overlap_weights(size: int, overlap: int, overlap_weight: float) -> Tensor:
    """Weigh the pixels of the predicted square: `overlap_weight` on the ring of known context, 1 inside.

    Pathak et al., CVPR 2016, Sec. 5.1.

    size: side of the square, in pixels.
    overlap: width of the ring, in pixels.
    Returns (1, 1, size, size).
    """
    weights = torch.full((1, 1, size, size), overlap_weight)
    weights[..., overlap : size - overlap, overlap : size - overlap] = 1.0
    return weights


def reconstruction(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average the weighted squared error over all elements. It is not divided by the sum of the weights.

    The authors' code weights the gradient of the plain mean; that is the gradient of this loss.

    prediction, target: (N, 3, H, W) in [-1, 1].
    weights: broadcastable to them; None weighs all elements by 1.
    """
    error = (prediction - target).square()
    return error.mean() if weights is None else (weights * error).mean()


def reconstruction_in_hole(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Average the squared error over the elements of the global batch's holes. It is 0 without any hole.

    Pathak et al., CVPR 2016, Eq. 1, normalised by the size of the holes.

    prediction, target: (N, 3, H, W) in [-1, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    # Eq. 1
    error = (mask * (prediction - target)).square().sum()
    return ratio(error, prediction.shape[1] * mask.sum(), at_least=1)
