"""DeepFill v2's losses: l1 over the whole image, and the hinge with the authors' halves."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def l1(prediction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute error over all elements, hole and known alike. Both (N, 3, H, W) in [-1, 1]."""
    return (prediction - image).abs().mean()


def hinge_real(scores: Tensor) -> Tensor:
    """The discriminator's term on real images, 0.5 * mean(relu(1 - D)), over all places and channels of scores.

    Yu et al., ICCV 2019, Eq. 4; the factor 0.5 is the authors' code's.
    """
    return 0.5 * F.relu(1 - scores).mean()


def hinge_fake(scores: Tensor) -> Tensor:
    """The discriminator's term on composites, 0.5 * mean(relu(1 + D)), over all places and channels of scores."""
    return 0.5 * F.relu(1 + scores).mean()


def adversarial(scores: Tensor) -> Tensor:
    """The generator's term, -mean(D) on composites. Yu et al., ICCV 2019, Eq. 3."""
    return -scores.mean()
