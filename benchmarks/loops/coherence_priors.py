"""Attention and patch coherence within classes, as plain loops over samples, classes and cells.

Slow, and easy to check. Patches are cut out one by one; gradients flow as in the fast layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from files.pictures import IGNORE
from jobs.generators.coherence_priors.attention import SemanticWiseAttention
from jobs.generators.coherence_priors.losses import patch_coherence


def cut_patches(features: Tensor) -> Tensor:
    """Every 3x3 patch, zeros beyond the border, divided by its length (1e-4 at least): (C, h, w) -> (h * w, 9 * C)."""
    channels, height, width = features.shape
    padded = features.new_zeros(channels, height + 2, width + 2)
    padded[:, 1:-1, 1:-1] = features
    patches = []
    for y in range(height):
        for x in range(width):
            patch = padded[:, y : y + 3, x : x + 3].reshape(-1)
            patches.append(patch / patch.square().sum().clamp_min(1e-8).sqrt())
    return torch.stack(patches)


def propagate(features: Tensor, logits: Tensor, hole: Tensor, rate: int = 1, softmax_scale: float = 10.0) -> Tensor:
    """What `SemanticWiseAttention` computes; arguments and result as there."""
    return torch.stack(
        [_propagate_one(*sample, rate, softmax_scale) for sample in zip(features, logits, hole, strict=True)]
    )


def _propagate_one(features: Tensor, logits: Tensor, hole: Tensor, rate: int, softmax_scale: float) -> Tensor:
    height, width = features.shape[-2] // rate, features.shape[-1] // rate
    patches = cut_patches(features[:, ::rate, ::rate])
    places = [
        (slice(y * rate, (y + 1) * rate), slice(x * rate, (x + 1) * rate)) for y in range(height) for x in range(width)
    ]
    classes = [int(logits[:, y.start, x.start].argmax()) for y, x in places]
    blocks = [features[:, y, x] for y, x in places]
    masked = [bool((hole[0, y, x] > 0).any()) for y, x in places]
    known = [cell for cell, is_masked in enumerate(masked) if not is_masked]
    filled = features.clone()
    if not known:
        return filled
    for one in sorted(set(classes)):
        keys = [cell for cell in known if classes[cell] == one] or known
        key_patches = torch.stack([patches[key] for key in keys])
        key_blocks = torch.stack([blocks[key] for key in keys])
        for cell, (y, x) in enumerate(places):
            if masked[cell] and classes[cell] == one:
                weights = torch.softmax(softmax_scale * (key_patches @ patches[cell]), dim=0)
                value = torch.tensordot(weights, key_blocks, dims=1)
                filled[:, y, x] = torch.where(hole[:, y, x] > 0, value, features[:, y, x])
    return filled


def measure_coherence(generated: Tensor, real: Tensor, labels: Tensor, hole: Tensor) -> Tensor:
    """What `patch_coherence` computes in one process; arguments and result as there."""
    total, number = generated.new_zeros(()), 0
    for sample in range(len(generated)):
        queries, keys = cut_patches(generated[sample]), cut_patches(real[sample].detach())
        flat_labels, masked = labels[sample].flatten().tolist(), hole[sample].flatten().tolist()
        cells = range(len(masked))
        for one in sorted(set(flat_labels) - {IGNORE}):
            same = [cell for cell in cells if flat_labels[cell] == one and not masked[cell]]
            if not same:
                continue
            key_patches = torch.stack([keys[key] for key in same])
            for cell in cells:
                if masked[cell] and flat_labels[cell] == one:
                    total = total + 1 - (key_patches @ queries[cell]).max()
                    number += 1
    return total / max(1, number)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop) on the same two 256x256 images: centred 128x128 holes, one class above and one below.

    The loops look at hole cells and keys of their class alone, the fast layers at all pairs of cells.
    """
    torch.manual_seed(0)
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for scale, channels, rate in ((1, 128, 2), (2, 256, 1)):
        side = 256 // 2**scale
        arguments = (torch.randn(2, channels, side, side), _halves(side), _centre(side))
        layer = SemanticWiseAttention(rate=rate)
        cases[f"semantic-wise attention at scale {scale}"] = (
            lambda layer=layer, arguments=arguments: layer(*arguments),
            lambda arguments=arguments, rate=rate: propagate(*arguments, rate=rate),
        )
    coherence = (torch.randn(2, 256, 64, 64), torch.randn(2, 256, 64, 64), _halves(64).argmax(dim=1), _centre(64))
    cases["patch coherence"] = (lambda: patch_coherence(*coherence), lambda: measure_coherence(*coherence))
    return cases


def _centre(side: int) -> Tensor:
    hole = torch.zeros(2, 1, side, side)
    hole[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return hole


def _halves(side: int) -> Tensor:
    """Logits (2, 2, side, side) of one class above and one below, as sky and land."""
    below = (torch.arange(side) >= side // 2).float().view(1, 1, side, 1).expand(2, 1, side, side)
    return torch.cat((1 - below, below), dim=1)
