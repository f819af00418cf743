"""Neural Patch Synthesis's own losses: the three terms of the texture energy."""

from __future__ import annotations

from torch import Tensor


def content(features: Tensor, target: Tensor, cells: Tensor | None = None) -> Tensor:
    """Mean squared difference to the content image's features; 0 where no cell counts. Authors' code, relu4_2.

    features, target: (1, C, h, w); cells: (1, 1, h, w), 1 = counts, or None for all.
    """
    error = (features - target).square()
    if cells is None:
        return error.mean()
    return (cells * error).sum() / (error.shape[1] * cells.sum()).clamp_min(1)


def mrf(features: Tensor, blended: Tensor, covered: Tensor) -> Tensor:
    """Half the sum of squared differences to the blended matches V, on the cells that their patches cover.

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
