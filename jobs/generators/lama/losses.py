"""Losses of LaMa alone: l1 of known pixels, soft labels by the mask, feature matching, and R1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.precision import widen


def l1_of_known(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Sum |difference| over known pixels, divided by the number of all elements.

    predicted, image: (N, 3, H, W), of one range.
    mask: (N, 1, H, W), 1 = hole.
    """
    return ((predicted - image).abs() * (1 - mask)).mean()


def fake_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of a fake's scores: cells of the hole have label 0, known cells label 1.

    Suvorov et al., WACV 2022, Eq. 3.

    scores: logits, (N, 1, h, w).
    mask: (N, 1, H, W), 1 = hole; it is resized to the scores by the nearest pixel.
    """
    scores = widen(scores)
    hole = F.interpolate(mask, scores.shape[-2:], mode="nearest")
    return (hole * F.softplus(scores) + (1 - hole) * F.softplus(-scores)).mean()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Average over layers the mean squared difference of a discriminator's features. The real ones get no gradient."""
    distances = [F.mse_loss(f, r.detach()) for f, r in zip(fake, real, strict=True)]
    return sum(distances) / len(distances)


def stage_distance(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum over stages the mean squared difference of a feature network's maps.

    Suvorov et al., WACV 2022, Eq. 2, as in the authors' code, which sums where the paper averages.
    """
    return sum(F.mse_loss(feature, target) for feature, target in zip(features, targets, strict=True))


def gradient_penalty(scores: Tensor, image: Tensor) -> Tensor:
    """Return R1: the mean over samples of the squared norm of d sum(scores) / d image, without a factor 1/2.

    Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, Eq. 9.

    scores: of real images, any shape, with the graph to `image`.
    image: (N, 3, H, W), which requires gradients.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), image, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
