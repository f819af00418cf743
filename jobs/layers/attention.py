"""Attention that rebuilds a feature map out of its own known patches."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype


class ContextualAttention(nn.Module):
    """Rebuild every cell of a map as a weighted sum of background patches without a hole.

    Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, in the form of the authors' code. It
    matches 3x3 patches at half the map's resolution, and pastes 4x4 patches of the full map, two cells apart. The
    scores are cosine similarities in which only the background is normalised. They are fused with the scores of
    diagonal neighbours, and their softmax gives the weights. Scores and softmax are computed in float32 at least.
    There are no parameters.

    fuse: whether to add the scores of neighbouring pairs, so that neighbours copy from neighbours.
    softmax_scale: factor of the scores; 10 in the authors' code.
    mask_pool: how the mask shrinks to one value per cell. "nearest" is the authors'; it may lose a hole thinner than a
        cell and copy hole features as if they were known. "max" keeps such a hole.

    forward(foreground, background, mask):
        foreground: (N, C, H, W), any range, H and W even.
        background: (N, C, H, W), any range.
        mask: (N, 1, k * H, k * W) for an integer k, 1 = hole. Each sample has its own.
    Returns (N, C, H, W). The outermost ring is scaled by 0.5 and its corners by 0.25, since fewer patches overlap there
    and the authors divide by 4 everywhere. A mask without any valid patch gives exactly 0.
    Raises ValueError for other sizes, and for an unknown mask_pool.
    """

    def __init__(
        self, *, fuse: bool = True, softmax_scale: float = 10.0, mask_pool: Literal["nearest", "max"] = "nearest"
    ) -> None:
        super().__init__()
        if mask_pool not in ("nearest", "max"):
            raise ValueError(f'mask_pool must be "nearest" or "max", got {mask_pool!r}')
        self.fuse = fuse
        self.softmax_scale = softmax_scale
        self.mask_pool = mask_pool

    def forward(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        # Scores reach hundreds, so their softmax would be noise in half precision.
        dtype = wide_dtype(foreground)
        with torch.autocast(foreground.device.type, enabled=False):
            weights = self.weights(foreground.to(dtype), background.to(dtype), mask.to(dtype))  # (N, P, L)
            patches = F.unfold(background.to(dtype), kernel_size=4, stride=2, padding=1)  # (N, 16 * C, L)
            pasted = torch.bmm(patches, weights.transpose(1, 2))  # (N, 16 * C, P)
            output = F.fold(pasted, foreground.shape[-2:], kernel_size=4, stride=2, padding=1) / 4
        return output.to(foreground.dtype)

    def weights(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Compute the share of every background cell l in every foreground cell p.

        The arguments are those of `forward`.
        Returns (N, P, L) in [0, 1], P = L = (H / 2) * (W / 2), cells row by row. Rows sum to at most 1: masked cells
        get no weight, but keep their exp(0) in the softmax's denominator.
        """
        height, width = foreground.shape[-2] // 2, foreground.shape[-1] // 2
        _check_sizes(foreground, background, mask)
        valid = self._valid(mask, height, width)
        queries = F.unfold(foreground[..., ::2, ::2], kernel_size=3, padding=1)  # (N, 9 * C, P), not normalised
        keys = F.unfold(background[..., ::2, ::2], kernel_size=3, padding=1)
        keys = keys / torch.linalg.vector_norm(keys, dim=1, keepdim=True).clamp_min(1e-4)
        scores = torch.bmm(queries.transpose(1, 2), keys)
        if self.fuse:
            scores = _add_diagonal_neighbours(scores)
            scores = _to_columns(scores, height, width)
            scores = _add_diagonal_neighbours(scores)
            scores = _to_columns(scores, width, height)
        # Zero before the softmax and zero after it, never -inf: an all-hole mask then gives 0 instead of NaN.
        return torch.softmax(_drop_negligible(self.softmax_scale * scores * valid), dim=2) * valid

    def _valid(self, mask: Tensor, height: int, width: int) -> Tensor:
        """Return (N, 1, L): 1 where no cell of the 3x3 around a background cell is a hole. The outside is known."""
        factor = mask.shape[-1] // width
        if self.mask_pool == "max":
            cells = F.max_pool2d(mask, factor)
        else:
            cells = mask[..., ::factor, ::factor]
        return (F.max_pool2d(cells, kernel_size=3, stride=1, padding=1) == 0).to(mask.dtype).flatten(2)


def _check_sizes(foreground: Tensor, background: Tensor, mask: Tensor) -> None:
    height, width = foreground.shape[-2:]
    if foreground.shape != background.shape or height % 2 or width % 2:
        shapes = f"{tuple(foreground.shape)} and {tuple(background.shape)}"
        raise ValueError(f"foreground and background must be equal in shape with even sides, got {shapes}")
    factor = mask.shape[-1] // width
    if factor < 1 or mask.shape != (foreground.shape[0], 1, factor * height, factor * width):
        rule = f"({foreground.shape[0]}, 1, k * {height}, k * {width})"
        raise ValueError(f"mask must be {rule} for an integer k, got {tuple(mask.shape)}")


def _add_diagonal_neighbours(scores: Tensor) -> Tensor:
    """Compute D(S)[p, l] = S[p-1, l-1] + S[p, l] + S[p+1, l+1], with 0 beyond the ends.

    A cell at the end of a row has the first cell of the next row as its neighbour, as in the authors' code.
    """
    fused = scores.clone()
    fused[:, 1:, 1:] += scores[:, :-1, :-1]
    fused[:, :-1, :-1] += scores[:, 1:, 1:]
    return fused


def _drop_negligible(logits: Tensor) -> Tensor:
    """Replace logits by -inf if their share of the softmax over the last axis is below 1e-20, so that it becomes 0.

    Such shares change no sum in float32 or float64. Many would be denormal numbers, which make products of matrices
    about ten times slower on a CPU.
    """
    largest = logits.detach().amax(dim=-1, keepdim=True)
    return logits.masked_fill(logits < largest - 20 * math.log(10), -math.inf)


def _to_columns(scores: Tensor, height: int, width: int) -> Tensor:
    """Reorder both axes of (N, P, L) from row-major to column-major over height x width cells.

    A second call with the two sizes swapped restores the order.
    """
    cells = scores.unflatten(1, (height, width)).unflatten(3, (height, width))  # (N, h, w, h, w)
    return cells.permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)
