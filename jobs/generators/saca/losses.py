"""SACA's own losses: L1 by hole size, perceptual and style losses, and optional losses of the regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from files.pictures import IGNORE
from jobs.layers import perceptual
from jobs.layers.vgg import VGG19, imagenet_normalised
from jobs.recipe.collectives import num_processes, ratio
from jobs.recipe.losses import cross_entropy
from jobs.recipe.precision import wide_dtype


def l1_by_hole(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean absolute difference over all pixels, divided by the share of the hole in the global batch.

    predicted, image: (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole. A share below 0.001 counts as 0.001.
    """
    # `ratio` adds up the shares of all processes, so the lower bound is multiplied by their number.
    return ratio(F.l1_loss(predicted, image), mask.mean(), at_least=1e-3 * num_processes())


def perceptual_and_style(vgg: VGG19, predicted: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute EdgeConnect's perceptual and style losses, with images normalised with ImageNet's mean and deviation.

    vgg: with the layers of `jobs.layers.perceptual`.
    predicted, image: (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    return perceptual.perceptual_and_style(lambda seen: vgg(imagenet_normalised(seen)), predicted, image, mask)


def supervision(assignments: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Compute the cross-entropy of the assignments with labels, summed over modules.

    assignments: logits of every module, (N, K, h, w); they are resized bilinearly to the labels' size.
    labels: int64 (N, H, W), in [0, K), or `IGNORE`, which is left out.
    Raises UserError for a label that is no region, on a CPU.
    """
    regions = assignments[0].shape[1]
    if labels.device.type == "cpu":  # the number of classes was compared before; a look would wait for the GPU
        largest = labels.where(labels != IGNORE, 0).max().item()
        if largest >= regions:
            raise UserError(f"label {largest} is no region: regions must be the number of classes, got {regions}")
    resized = (F.interpolate(logits, labels.shape[-2:], mode="bilinear") for logits in assignments)
    return sum(cross_entropy(logits, labels) for logits in resized)


def negative_entropy(assignments: Sequence[Tensor]) -> Tensor:
    """Compute minus the entropy of the assignment averaged over a sample's cells; mean over samples, sum over modules.

    assignments: logits of every module, (N, K, h, w).
    Returns nats: per module between -log(K), if all regions are used equally, and 0, if only one is used.
    """
    dtype = wide_dtype(assignments[0])
    shares = (logits.to(dtype).softmax(dim=1).mean(dim=(2, 3)) for logits in assignments)  # (N, K) each
    return sum(torch.xlogy(share, share.clamp_min(torch.finfo(dtype).tiny)).sum(dim=1).mean() for share in shares)
