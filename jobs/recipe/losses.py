"""Losses that at least two papers use: plain functions on tensors, unweighted, one scalar each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from files.pictures import IGNORE
from jobs.recipe.collectives import ratio
from jobs.recipe.precision import widen


def bce_real(logits: Tensor) -> Tensor:
    """Return the mean of -log D: binary cross-entropy with label 1.

    The discriminator's term on real images, and the generator's on its own (the non-saturating form). Goodfellow et
    al., "Generative Adversarial Nets", 2014, Eq. 1 and end of Sec. 3.
    logits: any shape.
    """
    return F.softplus(-widen(logits)).mean()


def bce_fake(logits: Tensor) -> Tensor:
    """Return the mean of -log(1 - D): binary cross-entropy with label 0.

    logits: any shape, of detached fakes.
    """
    return F.softplus(widen(logits)).mean()


def hinge_real(scores: Tensor) -> Tensor:
    """Return the mean of max(0, 1 - D), the discriminator's term on real images.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018, Eq. 16.
    scores: any shape.
    """
    return F.relu(1 - widen(scores)).mean()


def hinge_fake(scores: Tensor) -> Tensor:
    """Return the mean of max(0, 1 + D), the discriminator's term on fakes.

    scores: any shape, of detached fakes.
    """
    return F.relu(1 + widen(scores)).mean()


def hinge_generator(scores: Tensor) -> Tensor:
    """Return -mean(D), the generator's term beside the hinge (Miyato et al. 2018, Eq. 17). scores: any shape."""
    return -widen(scores).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over the labelled pixels of the global batch. It is 0 if there is none.

    logits: (N, K, H, W).
    labels: int64 (N, H, W) in [0, K), `IGNORE` where unknown.
    """
    is_known = labels != IGNORE
    # Gathered, since PyTorch has no deterministic kernel of nll_loss for a GPU.
    scores = widen(logits).log_softmax(dim=1).gather(1, labels.where(is_known, 0)[:, None])[:, 0]
    return ratio(-(scores * is_known).sum(), is_known.sum().to(scores.dtype), at_least=1)


def perceptual(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum the mean absolute differences of several layers, each with weight 1.

    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016, Eq. 2, with |.| in
    place of the square, as in the inpainting papers.
    features, targets: the same layers, (N, C, H, W) each.
    """
    return sum(F.l1_loss(feature, target) for feature, target in zip(features, targets, strict=True))


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Compare a discriminator's features of fake and real images as `perceptual` does.

    Salimans et al., "Improved Techniques for Training GANs", 2016, Sec. 3.1, layer by layer as in Wang et al., "High-
    Resolution Image Synthesis with Conditional GANs", 2018, Eq. 4.
    fake, real: the same layers, (N, C, H, W) each. The real ones get no gradient.
    """
    return perceptual(fake, [feature.detach() for feature in real])


def gram(features: Tensor) -> Tensor:
    """Return the correlations of channels, F F^T / (C H W), in float32 at least: (N, C, H, W) -> (N, C, C)."""
    # The style loss is a difference of two nearly equal sums. Half precision would round it away.
    with torch.autocast(features.device.type, enabled=False):
        flat = widen(features).flatten(2)  # (N, C, H*W)
        return flat @ flat.transpose(1, 2) / flat[0].numel()


def style(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum the mean absolute differences of several layers' Gram matrices, each with weight 1.

    Gatys et al., "Image Style Transfer Using Convolutional Neural Networks", 2016, Eq. 3-5, with |.| in place of the
    square.
    features, targets: the same layers, (N, C, H, W) each.
    """
    return perceptual([gram(feature) for feature in features], [gram(target) for target in targets])
