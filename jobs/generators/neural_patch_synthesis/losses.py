"""Neural Patch Synthesis's own losses: those of the content network, and the three terms of the texture energy."""

from __future__ import annotations

import torch
from torch import Tensor


def overlap_weights(size: int, overlap: int, overlap_weight: float) -> Tensor:
    """The weight of each predicted pixel: overlap_weight on the ring that overlaps known context, 1 inside.

    Authors' training code of the content network. Returns (1, 1, size, size); the ring is `overlap` pixels wide.
    """
    weights = torch.full((1, 1, size, size), overlap_weight)
    weights[..., overlap : size - overlap, overlap : size - overlap] = 1.0
    return weights


def reconstruction(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over all elements of the weighted squared error; the weights are not normalised.

    prediction, target: (N, 3, H, W) in [-1, 1]; weights: broadcastable to them.
    """
    error = (prediction - target).square()
    return error.mean() if weights is None else (weights * error).mean()


def content(features: Tensor, target: Tensor, cells: Tensor | None = None) -> Tensor:
    """Mean squared difference to the content image's features; 0 where no cell counts. Authors' code, relu4_2.

    features, target: (1, C, h, w); cells: (1, 1, h, w), 1 = counts, or None for all.
    """
    error = (features - target).square()
    if cells is None:
        return error.mean()
    return (cells * error).sum() / (error.shape[1] * cells.sum()).clamp_min(1)


def mrf(features: Tensor, blended: Tensor, covered: Tensor) -> Tensor:
    """Half the sum of squared differences to the blended matches V, on what their patches cover.

    Its gradient, F - V, is the one that the authors' code writes down: at every cell, query minus source averaged over
    the patches that cover it. features, blended: (1, C, h, w), the latter fixed; covered: (1, 1, h, w), 0 or 1.
    """
    return 0.5 * (covered * (features - blended).square()).sum()


def total_variation(pixels: Tensor) -> Tensor:
    """Half the sum of squared differences to the right and the lower neighbour, on all but the last row and column.

    Authors' code. pixels: (1, 3, H, W), in [0, 256].
    """
    across = pixels[..., :-1, :-1] - pixels[..., :-1, 1:]
    down = pixels[..., :-1, :-1] - pixels[..., 1:, :-1]
    return 0.5 * (across.square() + down.square()).sum()
