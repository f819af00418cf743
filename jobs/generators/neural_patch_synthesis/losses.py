"""Losses of Neural Patch Synthesis alone: the three terms of the texture energy."""

from __future__ import annotations

from torch import Tensor


def content(features: Tensor, target: Tensor, cells: Tensor | None = None) -> Tensor:
    """Average the squared difference to the features of the content image. It is 0 if no cell counts.

    Authors' code, relu4_2.

    features, target: (1, C, h, w).
    cells: (1, 1, h, w), 1 = counts; None counts all.
    """
    error = (features - target).square()
    if cells is None:
        return error.mean()
    return (cells * error).sum() / (error.shape[1] * cells.sum()).clamp_min(1)


def mrf(features: Tensor, blended: Tensor, covered: Tensor) -> Tensor:
    """Sum half the squared differences to the blended matches V over the cells that their patches cover.

    The gradient F - V is the one of the authors' code: at every cell, query minus source, averaged over the patches
    that cover the cell.

    features: F, (1, C, h, w).
    blended: V, (1, C, h, w), constant.
    covered: (1, 1, h, w), 0 or 1.
    """
    return 0.5 * (covered * (features - blended).square()).sum()


def total_variation(pixels: Tensor) -> Tensor:
    """Sum half the squared differences to the right and the lower neighbour, without the last row and column.

    Authors' code.

    pixels: (1, 3, H, W) in [0, 256].
    """
    across = pixels[..., :-1, :-1] - pixels[..., :-1, 1:]
    down = pixels[..., :-1, :-1] - pixels[..., 1:, :-1]
    return 0.5 * (across.square() + down.square()).sum()
