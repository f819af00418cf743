"""Semantic-wise attention: a hole cell is made of the known cells of its own class. And the similarity it rests on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype

SMALLEST_NORM = 1e-4
"""Of a patch: shorter ones count as if they were that long."""


class SemanticWiseAttention(nn.Module):
    """SWAP's attention: rebuild every hole cell as a weighted sum of known cells that are of the same class.

    Liao et al., "Image Inpainting Guided by Coherence Priors of Semantics and Textures", CVPR 2021: contextual
    attention (Yu et al., CVPR 2018) within each class, the classes' results summed to the hole's new content. One
    masked softmax over all cells is the same as that sum.
    Inferred: classes are those predicted, in the hole and outside it; a class that exists in the hole alone may look at
    all known cells; values are single cells, since overlapping patches would mix classes at their borders.
    Has no parameters; works in float32 at least.

    rate: matching is done on every rate-th cell, and rate x rate cells are copied at once.
    softmax_scale: the factor on the cosines; 10 in contextual attention's code.
    forward(features, logits, hole): (N, C, h, w), any range, h and w multiples of rate; (N, K, h, w); (N, 1, h, w),
        1 = hole. Returns (N, C, h, w): known cells, and samples without any, as they were, bit for bit.
    Classes and holes are constants for the gradient; features get it through comparison and through copying.
    """

    def __init__(self, *, rate: int = 1, softmax_scale: float = 10.0) -> None:
        super().__init__()
        self.rate = rate
        self.softmax_scale = softmax_scale

    def forward(self, features: Tensor, logits: Tensor, hole: Tensor) -> Tensor:
        rate, (height, width) = self.rate, features.shape[-2:]
        if height % rate or width % rate:
            raise ValueError(f"h and w must be multiples of the attention's rate {rate}, got {(height, width)}")
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(dtype)
            classes = logits.detach().argmax(dim=1)[:, ::rate, ::rate]
            coarse_hole = F.max_pool2d(hole, rate)
            weights = self.weights(wide[..., ::rate, ::rate], classes, coarse_hole)
            values = F.pixel_unshuffle(wide, rate).flatten(2)  # (N, rate^2 * C, P)
            attended = torch.bmm(values, weights.transpose(1, 2)).unflatten(2, coarse_hole.shape[-2:])
            has_source = (coarse_hole == 0).flatten(1).any(dim=1).view(-1, 1, 1, 1)
            filled = torch.where((hole > 0) & has_source, F.pixel_shuffle(attended, rate), wide)
        return filled.to(features.dtype)

    def weights(self, features: Tensor, classes: Tensor, hole: Tensor) -> Tensor:
        """(N, P, P) in [0, 1]: the share of cell j in cell i, both row-major. Rows sum to 1; hole cells get exactly 0.

        features: (N, C, h, w); classes: int64 (N, h, w); hole: (N, 1, h, w). In a sample without known cells the rows
        say nothing, but are finite.
        """
        known = (hole == 0).flatten(1)[:, None]  # (N, 1, P), of the keys
        classes = classes.flatten(1)
        allowed = (classes[:, :, None] == classes[:, None]) & known
        # Neither a row nor a sample may be left without a key: its softmax would be NaN.
        allowed |= known & ~allowed.any(dim=2, keepdim=True)
        allowed |= ~known.any(dim=2, keepdim=True)
        # In place: each of these maps has P^2 numbers per sample, 67 MB in float32 for 64 x 64 cells.
        scores = patch_cosines(features, features).mul_(self.softmax_scale)
        return scores.masked_fill_(allowed.logical_not_(), -torch.inf).softmax(dim=2)


def patch_cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """<p_i, q_j> / (|p_i| |q_j|) of all 3x3 patches of one map with all of another: (N, P, L), row-major.

    queries: (N, C, h, w); keys: (N, C, h', w'), any range; patches beyond the border see zeros. No patch is unfolded: a
    product of patches is the sum of nine products of cells, and all cells are multiplied once.
    """
    cells = torch.bmm(queries.flatten(2).transpose(1, 2), keys.flatten(2))  # (N, P, L)
    sizes = (*queries.shape[-2:], *keys.shape[-2:])
    products = _ShiftedSum.apply(cells.view(len(cells), *sizes)).view_as(cells)
    return products / _patch_norms(queries)[:, :, None] / _patch_norms(keys)[:, None]


def _patch_norms(features: Tensor) -> Tensor:
    """max(|p|, `SMALLEST_NORM`) of every 3x3 patch: (N, C, h, w) -> (N, P)."""
    squares = F.avg_pool2d(features.square().sum(dim=1, keepdim=True), 3, stride=1, padding=1, divisor_override=1)
    return squares.flatten(1).clamp_min(SMALLEST_NORM**2).sqrt()


class _ShiftedSum(torch.autograd.Function):
    """S[y, x, y', x'] = sum over dy, dx in {-1, 0, 1} of G[y + dy, x + dx, y' + dy, x' + dx], beyond the border 0.

    The sum is its own adjoint, so that neither direction keeps anything.
    """

    @staticmethod
    def forward(ctx, products: Tensor) -> Tensor:
        return _add_neighbours(_add_neighbours(products, 1), 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _ShiftedSum.apply(gradient)


def _add_neighbours(products: Tensor, dim: int) -> Tensor:
    """The sum over -1, 0, 1 of a joint shift along dim and dim + 2 of (N, h, w, h', w'), written in place of a copy."""
    total = products.clone()
    first, last = _ends(total, dim)
    before, after = _ends(products, dim)
    last += before
    first += after
    return total


def _ends(products: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """All but the last and all but the first along dim and dim + 2, as views."""
    height, other = products.shape[dim] - 1, products.shape[dim + 2] - 1
    return (
        products.narrow(dim, 0, height).narrow(dim + 2, 0, other),
        products.narrow(dim, 1, height).narrow(dim + 2, 1, other),
    )
