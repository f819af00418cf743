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
    """Non-local patch coherence: how unlike a hole's patches are to the most similar known patch of the same class.

    L_p = sum_i (1 - max_j cos(p_i, q_j)) / max(1, number of i), over the hole cells i of the global batch that have a
    label and some known cell j of that label; p from the generated, q from the real features, 3x3 (form inferred). In
    [0, 2]; 0 where there is no such cell.
    generated, real: (N, C, h, w); labels: int64 (N, h, w), `IGNORE` where unknown; hole: (N, 1, h, w), 1 = hole. The
    real features get no gradient. Works in float32 at least.
    """
    dtype = wide_dtype(generated)
    with torch.autocast(generated.device.type, enabled=False):
        generated, real = generated.to(dtype), real.detach().to(dtype)
        sample, place, key = _best_matches(generated.detach(), real, labels.flatten(1), hole.flatten(1) > 0)
        # Only the chosen pairs' cosines carry gradient, which is that of the maximum, without a map of all pairs.
        queries = F.unfold(generated, 3, padding=1)[sample, :, place]  # (number of i, 9 C)
        keys = F.unfold(real, 3, padding=1)[sample, :, key]
        cosines = (queries * keys).sum(dim=1) / (_norm(queries) * _norm(keys))
        number = cosines.new_tensor(len(cosines))
        return ratio((1 - cosines).sum(), number, at_least=1)


@torch.no_grad()
def _best_matches(generated: Tensor, real: Tensor, labels: Tensor, hole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, place of the query and place of its most similar key, for all queries that have one.

    generated, real: (N, C, h, w); labels, hole: (N, P), the latter boolean.
    """
    # A cell without label is no query, so that it never matters as a key.
    allowed = (labels[:, :, None] == labels[:, None]) & ~hole[:, None]
    is_query = hole & (labels != IGNORE) & allowed.any(dim=2)
    best = patch_cosines(generated, real).masked_fill_(~allowed, -torch.inf).argmax(dim=2)  # (N, P)
    sample, place = is_query.nonzero(as_tuple=True)
    return sample, place, best[sample, place]


def _norm(patches: Tensor) -> Tensor:
    return patches.square().sum(dim=1).clamp_min(SMALLEST_NORM**2).sqrt()


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """int64 (N, H, W) -> (N, num_classes, H, W), exactly 0 or 1; all 0 where a pixel has no label."""
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
    return (labels[:, None] == classes).to(dtype)


def straight_through_one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """The predicted classes as `one_hot`, with the gradient of their probabilities; 0 where the labels are unknown.

    Soft probabilities would be told from one-hot truth at a glance. logits: (N, K, H, W); labels: int64 (N, H, W), read
    only for where they are `IGNORE`. Returns (N, K, H, W), exactly 0 or 1, in float32 at least.
    """
    probabilities = class_probabilities(logits)
    classes = one_hot(logits.detach().argmax(dim=1), logits.shape[1], probabilities.dtype)
    # The difference is exactly 0; adding and then subtracting would leave rounding for the discriminator to see.
    return (classes + (probabilities - probabilities.detach())) * (labels != IGNORE)[:, None]
