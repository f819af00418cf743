"""The two coherence losses: of textures, by patches of the same class, and of structure, by discriminators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from files.pictures import IGNORE
from jobs.generators.coherence_priors.attention import SMALLEST_NORM, patch_cosines
from jobs.layers.semantic import class_probabilities
from jobs.recipe.collectives import ratio
from jobs.recipe.precision import wide_dtype


def patch_coherence(generated: Tensor, real: Tensor, labels: Tensor, hole: Tensor) -> Tensor:
    """Compute the non-local patch coherence loss L_p: the distance of hole patches to known ones of the same class.

    L_p = sum_i (1 - max_j cos(p_i, q_j)) / max(1, number of i). The i are the hole cells of the global batch that have
    a label and a known cell j of the same label. p_i are 3x3 patches of the generated features, q_j of the real ones
    (form inferred).
    generated: features of the output, (N, C, h, w), any range.
    real: features of the true image, (N, C, h, w); they get no gradient.
    labels: int64 (N, h, w), `IGNORE` where unknown.
    hole: (N, 1, h, w), 1 = hole.
    Returns a scalar in [0, 2], in float32 at least; 0 without such a cell.
    """
    dtype = wide_dtype(generated)
    with torch.autocast(generated.device.type, enabled=False):
        generated, real = generated.to(dtype), real.detach().to(dtype)
        is_query, key = _best_matches(generated.detach(), real, labels.flatten(1), hole.flatten(1) > 0)
        # Compute only the chosen pairs' cosines with gradient: the same gradient as of the maximum over all pairs.
        queries = F.unfold(generated, 3, padding=1)  # (N, 9 C, P)
        keys = F.unfold(real, 3, padding=1).gather(2, key[:, None].expand_as(queries))
        cosines = (queries * keys).sum(dim=1) / (_norm(queries) * _norm(keys))  # (N, P)
        # Cells that are no query are masked, not left out: the host would have to wait for their number.
        return ratio(((1 - cosines) * is_query).sum(), is_query.sum().to(dtype), at_least=1)


@torch.no_grad()
def _best_matches(generated: Tensor, real: Tensor, labels: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most similar key of every query that has one.

    generated, real: (N, C, h, w).
    labels: int64 (N, P), P = h * w.
    hole: bool (N, P).
    Returns whether a cell is a query, bool (N, P), and the cell of its key, int64 (N, P), any for the others.
    """
    # Cells without label may match each other here; none of them is a query.
    allowed = (labels[:, :, None] == labels[:, None]) & ~hole[:, None]
    is_query = hole & (labels != IGNORE) & allowed.any(dim=2)
    return is_query, patch_cosines(generated, real).masked_fill_(~allowed, -torch.inf).argmax(dim=2)


def _norm(patches: Tensor) -> Tensor:
    return patches.square().sum(dim=1).clamp_min(SMALLEST_NORM**2).sqrt()


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Encode labels, int64 (N, H, W) -> (N, num_classes, H, W), exactly 0 or 1; all 0 where a pixel has no label."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == classes).to(dtype)


def straight_through_one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """Encode the predicted classes as `one_hot` does, with the gradient of their probabilities.

    A discriminator would easily tell soft probabilities from the one-hot truth.
    logits: (N, K, H, W).
    labels: int64 (N, H, W); only `IGNORE` matters: there the result is 0.
    Returns (N, K, H, W), exactly 0 or 1, in float32 at least.
    """
    probabilities = class_probabilities(logits)
    classes = one_hot(logits.detach().argmax(dim=1), logits.shape[1], probabilities.dtype)
    # The brackets matter: this difference is exactly 0, while (classes + p) - p would leave rounding errors to see.
    return (classes + (probabilities - probabilities.detach())) * (labels != IGNORE)[:, None]
