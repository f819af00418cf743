"""RFR-Net's knowledge-consistent attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype

_EPSILON = 1e-7


class KnowledgeConsistentAttention(nn.Module):
    """Replace every cell by a mean of all cells, weighted by scores that earlier recurrences share.

    Li et al., CVPR 2020, Sec. 3.3, as in the authors' code. Keys are normalised features, queries are not. The score of
    a query is summed over its 3x3 neighbours, with zeros beyond the border. Computed in float32 at least.

    forward(features, filled, previous):
        features: (N, channels, H, W), any range.
        filled: mask of the recurrence before, (N, 1, H, W), 1 = known then.
        previous: blended scores of the recurrence before, (N, H W, H W), query by key; None in the first.
    Returns features (N, channels, H, W) and blended scores (N, H W, H W), whose rows sum to 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ratio = nn.Parameter(torch.ones(1))
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, features: Tensor, filled: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(dtype)
            keys = F.normalize(wide + _EPSILON, dim=1).flatten(2)  # (N, C, H W)
            # <F_n, k> summed over the neighbours n of a query is <sum of F_n, k>.
            queries = F.avg_pool2d(wide, 3, stride=1, padding=1, divisor_override=1).flatten(2)
            scores = (queries.transpose(1, 2) @ keys).softmax(dim=2)
            if previous is not None:
                scores = self._blend(scores, previous, filled.flatten(2).transpose(1, 2).to(dtype))
            attended = (keys @ scores.transpose(1, 2)).view_as(wide)
        return self.join(torch.cat((attended.to(features.dtype), features), dim=1)), scores

    def _blend(self, scores: Tensor, previous: Tensor, filled: Tensor) -> Tensor:
        """Mix new and earlier scores where a query was filled before, and take the new ones elsewhere.

        scores, previous: (N, P, P).
        filled: (N, P, 1), 1 = known in the recurrence before.
        """
        share = self.ratio.abs() + _EPSILON
        return (filled * previous + share * scores) / (filled + share)
