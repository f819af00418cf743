"""SACA's own losses: L1 by hole size, features of wholes and holes, and what may be asked of the regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from files.pictures import IGNORE
from jobs.layers.vgg import VGG19, imagenet_normalised
from jobs.recipe.collectives import num_processes, ratio
from jobs.recipe.losses import cross_entropy, perceptual, style

PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def l1_by_hole(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference over all pixels, divided by the share of the hole in the global batch.

    predicted, image: (N, 3, H, W) in [0, 1]; mask: (N, 1, H, W). A share below 0.001 counts as 0.001.
    """
    # The shares of all processes are summed, so the guard is, too.
    return ratio(F.l1_loss(predicted, image), mask.mean(), at_least=1e-3 * num_processes())


def perceptual_and_style(vgg: VGG19, predicted: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The perceptual loss on whole images and the style loss on their holes, from one pass of VGG-19 over each.

    predicted, image: (N, 3, H, W) in [0, 1]; mask: (N, 1, H, W).
    """
    features = vgg(imagenet_normalised(torch.cat((predicted, predicted * mask))))  # {layer: (2 N, C, h, w)}
    with torch.no_grad():
        targets = vgg(imagenet_normalised(torch.cat((image, image * mask))))

    def halves(found: dict[str, Tensor], names: tuple[str, ...], half: int) -> list[Tensor]:
        return [found[name].chunk(2)[half] for name in names]

    return (
        perceptual(halves(features, PERCEPTUAL_LAYERS, 0), halves(targets, PERCEPTUAL_LAYERS, 0)),
        style(halves(features, STYLE_LAYERS, 1), halves(targets, STYLE_LAYERS, 1)),
    )


def supervision(assignments: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Sum over modules of the cross-entropy of the assignment with labels; unknown labels do not count.

    assignments: logits (N, K, h, w), resized bilinearly to the labels' size; labels: int64 (N, H, W), in [0, K) or
    `IGNORE`. Raises ValueError for a label that is no region.
    """
    regions = assignments[0].shape[1]
    largest = labels.where(labels != IGNORE, 0).max().item()
    if largest >= regions:
        raise ValueError(f"label {largest} is no region: regions must be the number of classes, got {regions}")
    resized = (F.interpolate(logits, labels.shape[-2:], mode="bilinear") for logits in assignments)
    return sum(cross_entropy(logits, labels) for logits in resized)


def negative_entropy(assignments: Sequence[Tensor]) -> Tensor:
    """Sum over modules of minus the entropy of the mean assignment over a sample's cells, in nats, mean over samples.

    assignments: logits (N, K, h, w). Between -log(K) per module, when all regions are used alike, and 0 for one region.
    """
    dtype = torch.promote_types(assignments[0].dtype, torch.float32)
    shares = (logits.to(dtype).softmax(dim=1).mean(dim=(2, 3)) for logits in assignments)  # (N, K) each
    return sum(torch.xlogy(share, share.clamp_min(torch.finfo(dtype).tiny)).sum(dim=1).mean() for share in shares)
