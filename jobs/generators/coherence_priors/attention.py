"""Semantic-wise attention, which builds a hole cell from known cells of its class, and the similarity that it uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype

SMALLEST_NORM = 1e-4
"""Smallest norm of a patch: a shorter patch is divided by this instead of its own norm."""


class SemanticWiseAttention(nn.Module):
    """SWAP's attention: rebuild every hole cell as a weighted sum of known cells that are of the same class.

    Liao et al., "Image Inpainting Guided by Coherence Priors of Semantics and Textures", CVPR 2021: contextual
    attention (Yu et al., CVPR 2018) within each class; the classes' results are summed. One masked softmax over all
    cells equals that sum.
    Inferred: classes are the predicted ones, in the hole and outside it. A class that exists in the hole alone attends
    to all known cells. Single cells are copied: overlapping patches would mix classes at their borders.
    It has no parameters and computes in float32 at least.

    rate: matching is done on every rate-th cell, and rate x rate cells are copied at once.
    softmax_scale: factor on the cosines; 10 in contextual attention's code.
    forward(features, logits, hole):
        features: (N, C, h, w), any range; h and w are multiples of `rate`.
        logits: of the classes, (N, K, h, w).
        hole: (N, 1, h, w), 1 = hole.
    Returns (N, C, h, w). Known cells, and samples without any known cell, keep their values bit for bit.
    The gradient treats classes and holes as constants; it reaches the features through comparison and copying.
    Raises ValueError if h or w is no multiple of `rate`.
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
        """Return the share of every cell j in every cell i, both row-major: (N, P, P) in [0, 1], P = h * w.

        features: (N, C, h, w), any range.
        classes: int64 (N, h, w).
        hole: (N, 1, h, w), 1 = hole.
        Rows sum to 1, and the share of a hole cell is exactly 0. In a sample without known cells the rows are finite
        but meaningless.
        """
        known = (hole == 0).flatten(1)[:, None]  # (N, 1, P), of the keys
        classes = classes.flatten(1)
        allowed = (classes[:, :, None] == classes[:, None]) & known
        # Every row needs a key, also in a sample that is all hole: otherwise its softmax would be NaN.
        allowed |= known & ~allowed.any(dim=2, keepdim=True)
        allowed |= ~known.any(dim=2, keepdim=True)
        # In place: each of these maps has P^2 numbers per sample, 67 MB in float32 for 64 x 64 cells.
        scores = patch_cosines(features, features).mul_(self.softmax_scale)
        return scores.masked_fill_(allowed.logical_not_(), -torch.inf).softmax(dim=2)


def patch_cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute the cosines <p_i, q_j> / (|p_i| |q_j|) of all 3x3 patches of one map with all of another.

    queries: (N, C, h, w), any range.
    keys: (N, C, h', w'), any range.
    Returns (N, P, L), P = h * w and L = h' * w', row-major. Beyond the border the maps are 0.
    """
    # A product of patches is the sum of nine products of cells: multiply all cells once, and unfold no patch.
    cells = torch.bmm(queries.flatten(2).transpose(1, 2), keys.flatten(2))  # (N, P, L)
    sizes = (*queries.shape[-2:], *keys.shape[-2:])
    products = _ShiftedSum.apply(cells.view(len(cells), *sizes)).view_as(cells)
    return products / _patch_norms(queries)[:, :, None] / _patch_norms(keys)[:, None]


def _patch_norms(features: Tensor) -> Tensor:
    """Return max(|p|, `SMALLEST_NORM`) of every 3x3 patch: (N, C, h, w) -> (N, P)."""
    squares = F.avg_pool2d(features.square().sum(dim=1, keepdim=True), 3, stride=1, padding=1, divisor_override=1)
    return squares.flatten(1).clamp_min(SMALLEST_NORM**2).sqrt()


class _ShiftedSum(torch.autograd.Function):
    """S[y, x, y', x'] = sum over dy, dx in {-1, 0, 1} of G[y + dy, x + dx, y' + dy, x' + dx]; G is 0 beyond the border.

    The sum is its own adjoint, so nothing is saved for the backward pass.
    """

    @staticmethod
    def forward(ctx, products: Tensor) -> Tensor:
        return _add_neighbours(_add_neighbours(products, 1), 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _ShiftedSum.apply(gradient)


def _add_neighbours(products: Tensor, dim: int) -> Tensor:
    """Add to (N, h, w, h', w') itself shifted by -1 and by 1, jointly along `dim` and `dim + 2`."""
    total = products.clone()
    first, last = _ends(total, dim)
    before, after = _ends(products, dim)
    last += before
    first += after
    return total


def _ends(products: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return two views: all but the last, and all but the first index along `dim` and `dim + 2`."""
    height, other = products.shape[dim] - 1, products.shape[dim + 2] - 1
    return (
        products.narrow(dim, 0, height).narrow(dim + 2, 0, other),
        products.narrow(dim, 1, height).narrow(dim + 2, 1, other),
    )
