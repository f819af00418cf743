"""Losses that at least two papers use: plain functions on tensors, unweighted, one scalar each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from files.pictures import IGNORE
from jobs.recipe.collectives import ratio


def bce_real(logits: Tensor) -> Tensor:
    """-log D, the mean over all scores: binary cross-entropy with label 1. logits: any shape.

    The discriminator's term on real images, and the generator's on its own: the non-saturating form. Goodfellow et al.,
    "Generative Adversarial Nets", 2014, Eq. 1 and end of Sec. 3.
    """
    return F.softplus(-_wide(logits)).mean()


def bce_fake(logits: Tensor) -> Tensor:
    """-log(1 - D), the mean over all scores: binary cross-entropy with label 0. logits: any shape. Detach the fakes."""
    return F.softplus(_wide(logits)).mean()


def hinge_real(scores: Tensor) -> Tensor:
    """max(0, 1 - D), the mean over all scores: the discriminator's term on real images. scores: any shape.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018, Eq. 16.
    """
    return F.relu(1 - _wide(scores)).mean()


def hinge_fake(scores: Tensor) -> Tensor:
    """max(0, 1 + D), the mean over all scores: the discriminator's term on fakes. scores: any shape. Detach them."""
    return F.relu(1 + _wide(scores)).mean()


def hinge_generator(scores: Tensor) -> Tensor:
    """-mean(D), the generator's term beside the hinge (Miyato et al. 2018, Eq. 17). scores: any shape."""
    return -_wide(scores).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels of the global batch; 0 where there is none.

    logits: (N, K, H, W); labels: int64 (N, H, W) in [0, K), `IGNORE` where unknown.
    """
    known = labels != IGNORE
    # Gathered, since PyTorch has no deterministic kernel of nll_loss for a GPU.
    scores = _wide(logits).log_softmax(dim=1).gather(1, labels.where(known, 0)[:, None])[:, 0]
    return ratio(-(scores * known).sum(), known.sum().to(scores.dtype), at_least=1)


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
    """F F^T / (C H W), the correlations of the channels: (N, C, H, W) -> (N, C, C), in float32 at least."""
    # Half precision would round away what the style loss lives on, the difference of two nearly equal sums.
    with torch.autocast(features.device.type, enabled=False):
        flat = _wide(features).flatten(2)  # (N, C, H*W)
        return flat @ flat.transpose(1, 2) / flat[0].numel()


def style(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference of the Gram matrices, every layer with weight 1.

    Gatys et al., "Image Style Transfer Using Convolutional Neural Networks", 2016, Eq. 3-5, with |.| in place of the
    square. features, targets: the same layers, (N, C, H, W) each.
    """
    return perceptual([gram(feature) for feature in features], [gram(target) for target in targets])


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least: a mean of thousands of half-precision scores would be one of three digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
