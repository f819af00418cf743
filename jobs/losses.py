"""Losses that at least two papers use: plain functions on tensors, unweighted, one scalar each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)), each a mean over all scores, summed and not halved. Detach the fakes.

    Goodfellow et al., "Generative Adversarial Nets", 2014, Eq. 1. real, fake: logits, any shape.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def bce_generator(fake: Tensor) -> Tensor:
    """-log D(fake), the non-saturating form (Goodfellow et al. 2014, end of Sec. 3). fake: logits, any shape."""
    return F.softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - real) + max(0, 1 + fake), each a mean over all scores, summed and not halved. Detach the fakes.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018, Eq. 16. real, fake: any shape.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean(fake) (Miyato et al. 2018, Eq. 17). fake: scores, any shape."""
    return -fake.mean()


def perceptual(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference, every layer with weight 1.

    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016, Eq. 2, with |.| in
    place of the square, as the inpainting papers have it. features, targets: the same layers, (N, C, H, W) each.
    """
    return sum(F.l1_loss(feature, target) for feature, target in zip(features, targets, strict=True))


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """`perceptual` in a discriminator's features; those of the real image are a fixed target.

    Salimans et al., "Improved Techniques for Training GANs", 2016, Sec. 3.1, layer by layer as in Wang et al., "High-
    Resolution Image Synthesis with Conditional GANs", 2018, Eq. 4. fake, real: the same layers, (N, C, H, W) each.
    """
    return perceptual(fake, [feature.detach() for feature in real])


def gram(features: Tensor) -> Tensor:
    """F F^T / (C H W), the correlations of the channels: (N, C, H, W) -> (N, C, C), in float32."""
    # Half precision would round away what the style loss lives on, the difference of two nearly equal sums.
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)  # (N, C, H*W)
        return flat @ flat.transpose(1, 2) / flat[0].numel()


def style(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference of the Gram matrices, every layer with weight 1.

    Gatys et al., "Image Style Transfer Using Convolutional Neural Networks", 2016, Eq. 3-5, with |.| in place of the
    square. features, targets: the same layers, (N, C, H, W) each.
    """
    return perceptual([gram(feature) for feature in features], [gram(target) for target in targets])
