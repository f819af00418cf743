"""LBP's spatial attention: cells of the hole borrow from similar cells, known ones and others in the hole."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype


class SpatialAttention(nn.Module):
    """Add to each hole cell of a feature map a weighted sum of its best matches.

    Wu et al. 2021, the figure of the attention. F is the decoder's map, E the encoder's. For a hole cell j, k1 and k2
    are the known cells whose E is most similar to F_j by cosine, and l1 and l2 the hole cells whose F is. Then
    R_j = w1 E_k1 + w2 E_k2 + w3 F_l1 + w4 F_l2; elsewhere R is 0. The weights w are the softmax of the similarities.
    Indices and weights are constants: the gradient goes through the borrowed features alone. The layer has no
    parameters. Similarities and weights are computed in float32 at least.

    weights: "paper", each cell's w from its own similarities; "code", one w per image, from the means over its hole.
    self_match: whether l1 or l2 may be j itself, as in the authors' code. It then always is l1, with similarity 1.
    mask_pool: "nearest", a cell is hole if its top left pixel is, as in the authors' code; "max", if any pixel is.
    matches: number of cells of each kind; 2 in the authors' code.
    forward(generated, known, mask):
        generated: F, (N, C, h, w), any range.
        known: E, (N, C, h, w), any range.
        mask: (N, 1, k * h, k * w) for an integer k, 1 = hole, one per sample.
    Returns [F, E, R], (N, 3 * C, h, w). A match that does not exist, for lack of known or of hole cells, has weight 0.
    The forward pass needs memory for (h * w)^2 similarities per sample; nothing of it is kept for the backward pass.
    Raises ValueError for other sizes.
    """

    def __init__(
        self,
        *,
        weights: Literal["paper", "code"] = "paper",
        self_match: bool = False,
        mask_pool: Literal["nearest", "max"] = "nearest",
        matches: int = 2,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.self_match = self_match
        self.mask_pool = mask_pool
        self.matches = matches

    def forward(self, generated: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        hole = self._hole_cells(generated, known, mask)
        dtype = wide_dtype(generated)
        with torch.autocast(generated.device.type, enabled=False):
            inner = generated.to(dtype).flatten(2).transpose(1, 2)  # (N, P, C), as is outer
            outer = known.to(dtype).flatten(2).transpose(1, 2)
            cells, weights = self.match(inner, outer, hole)
            sources = [outer] * (cells.shape[2] // 2) + [inner] * (cells.shape[2] // 2)
            samples = torch.arange(len(cells), device=cells.device)[:, None]
            borrowed = sum(  # indexing, and not gather, whose gradient is summed in no fixed order on a GPU
                weights[:, :, rank, None] * source[samples, cells[:, :, rank]] for rank, source in enumerate(sources)
            )
        borrowed = borrowed.transpose(1, 2).unflatten(2, generated.shape[-2:]).to(generated.dtype)
        return torch.cat((generated, known, borrowed), dim=1)

    @torch.no_grad()
    def match(self, inner: Tensor, outer: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Find the cells that each cell borrows from, and their weights.

        inner: F as (N, P, C), P = h * w.
        outer: E as (N, P, C).
        hole: bool (N, P).
        Returns indices, int64 (N, P, 2 * matches), known cells first, best first, and weights of the same shape. The
        weights sum to 1 in the hole, or to 0 without any cell to borrow from; outside the hole they are 0.
        """
        inner, outer = F.normalize(inner, dim=2, eps=1e-8), F.normalize(outer, dim=2, eps=1e-8)
        never = -2.0  # below any cosine; with too few cells, topk takes some of these, so it is finite
        to_known = (inner @ outer.transpose(1, 2)).masked_fill_(hole[:, None], never)  # (N, P, P), a row per borrower
        to_hole = (inner @ inner.transpose(1, 2)).masked_fill_(~hole[:, None], never)
        if not self.self_match:
            to_hole.diagonal(dim1=1, dim2=2).fill_(never)
        best = [similarity.topk(min(self.matches, hole.shape[1]), dim=2) for similarity in (to_known, to_hole)]
        similarities = torch.cat([values for values, _ in best], dim=2)
        cells = torch.cat([indices for _, indices in best], dim=2)

        size = hole.sum(dim=1, keepdim=True)  # (N, 1), cells of the hole
        ranks = torch.arange(best[0].indices.shape[2], device=hole.device)
        others = size if self.self_match else size - 1
        exists = torch.cat((hole.shape[1] - size > ranks, others > ranks), dim=1)[:, None]  # (N, 1, 2 * matches)
        in_hole = hole[:, :, None]
        if self.weights == "code":
            similarities = (similarities * in_hole).sum(1, keepdim=True) / size.clamp_min(1)[:, None]
        # Finite, since with -inf the softmax of a cell without any match would be NaN.
        weights = similarities.masked_fill(~exists, -1e4).softmax(dim=2) * exists * in_hole
        return cells, weights

    def _hole_cells(self, generated: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Return bool (N, P), True in the hole. Raises ValueError for sizes that do not fit."""
        if generated.shape != known.shape:
            raise ValueError(f"both maps must be equal in shape, got {tuple(generated.shape)} and {tuple(known.shape)}")
        count, _, height, width = generated.shape
        factor = mask.shape[-1] // width
        if factor < 1 or mask.shape != (count, 1, factor * height, factor * width):
            rule = f"({count}, 1, k * {height}, k * {width})"
            raise ValueError(f"mask must be {rule} for an integer k, got {tuple(mask.shape)}")
        pooled = F.max_pool2d(mask, factor) if self.mask_pool == "max" else mask[..., ::factor, ::factor]
        return (pooled > 0).flatten(1)
