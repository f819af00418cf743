"""Attention that rebuilds a feature map out of its own known patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype


class ContextualAttention(nn.Module):
    """Rebuild every cell of a map as a weighted sum of background patches that hold no hole.

    Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, in the form of the authors' code: the
    weights are the softmax of cosine similarities (only the background is normalised) that were fused with those of
    diagonal neighbours. Matching is done at half the map's resolution with 3x3 patches; 4x4 patches of the full map,
    two pixels apart, are pasted. Has no parameters. Scores and softmax are computed in float32 at least.

    fuse: add the scores of neighbouring pairs, so that neighbours copy from neighbours.
    softmax_scale: the factor on the scores; 10 in the paper's code.
    mask_pool: how the mask shrinks to one value per cell: "nearest" as the authors do, or "max", which keeps a hole
        thinner than a cell; "nearest" may lose it and copy hole features as if they were known.
    forward(foreground, background, mask): two maps (N, C, H, W), any range, H and W even, and the mask
        (N, 1, k * H, k * W) for an integer k, 1 = hole, one per sample.
    Returns (N, C, H, W). The outermost ring is scaled by 0.5 (corners 0.25), since fewer patches overlap there and the
    authors divide by 4 everywhere. A mask without any valid patch gives exactly 0. Raises ValueError for other sizes.
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
        # Scores reach hundreds: in half precision their softmax would be noise.
        dtype = wide_dtype(foreground)
        with torch.autocast(foreground.device.type, enabled=False):
            weights = self.weights(foreground.to(dtype), background.to(dtype), mask.to(dtype))  # (N, P, L)
            patches = F.unfold(background.to(dtype), kernel_size=4, stride=2, padding=1)  # (N, 16 * C, L)
            pasted = torch.bmm(patches, weights.transpose(1, 2))  # (N, 16 * C, P)
            output = F.fold(pasted, foreground.shape[-2:], kernel_size=4, stride=2, padding=1) / 4
        return output.to(foreground.dtype)

    def weights(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """The attention A: (N, P, L) in [0, 1], the share of background cell l in foreground cell p, both row-major.

        Arguments as in `forward`; P = L = (H / 2) * (W / 2). Rows sum to at most 1: masked cells get no weight, but
        keep their exp(0) in the softmax's denominator.
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
        return torch.softmax(self.softmax_scale * scores * valid, dim=2) * valid

    def _valid(self, mask: Tensor, height: int, width: int) -> Tensor:
        """(N, 1, L): 1 where the 3x3 cells around a background cell hold no hole; beyond the border counts as known."""
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
    """D(S)[p, l] = S[p-1, l-1] + S[p, l] + S[p+1, l+1], beyond the border 0. Rows wrap, as in the authors' code."""
    fused = scores.clone()
    fused[:, 1:, 1:] += scores[:, :-1, :-1]
    fused[:, :-1, :-1] += scores[:, 1:, 1:]
    return fused


def _to_columns(scores: Tensor, height: int, width: int) -> Tensor:
    """Reorder both axes of (N, P, L) from row-major to column-major over height x width cells.

    With the two sizes swapped it is its own inverse.
    """
    cells = scores.unflatten(1, (height, width)).unflatten(3, (height, width))  # (N, h, w, h, w)
    return cells.permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)
