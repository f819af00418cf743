"""EdgeConnect's own losses: its choice of adversarial loss, and L1 by hole size. Images are in [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.collectives import num_processes, ratio
from jobs.recipe.losses import bce_fake, bce_real, hinge_fake, hinge_generator, hinge_real

GAN = Literal["nsgan", "lsgan", "hinge"]


def discriminator_loss(gan: GAN, real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's adversarial loss: half the sum of the losses on real and on fake logits.

    gan: the kind of loss.
    real, fake: logits, any shape.
    """
    if gan == "nsgan":
        return (bce_real(real) + bce_fake(fake)) / 2
    if gan == "lsgan":  # the code squares probabilities, not logits
        return (_square(1 - torch.sigmoid(real)) + _square(torch.sigmoid(fake))) / 2
    return (hinge_real(real) + hinge_fake(fake)) / 2


def generator_loss(gan: GAN, fake: Tensor) -> Tensor:
    """Compute the generator's adversarial loss.

    gan: the kind of loss.
    fake: the discriminator's logits of the generator's output, any shape.
    """
    if gan == "nsgan":
        return bce_real(fake)
    if gan == "lsgan":
        return _square(1 - torch.sigmoid(fake))
    return hinge_generator(fake)


def l1_by_hole(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean absolute difference over all pixels, divided by the share of the hole in the global batch.

    predicted, image: (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole. A batch without a hole counts as one with a hole of one pixel.
    """
    # `ratio` adds up the shares of all processes, so the lower bound is multiplied by their number.
    return ratio(F.l1_loss(predicted, image), mask.mean(), at_least=num_processes() / mask[0].numel())


def _square(error: Tensor) -> Tensor:
    return error.square().mean()
