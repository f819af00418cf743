"""EdgeConnect's own losses: its choice of adversarial loss, L1 by hole size, style in the hole. Images in [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.collectives import num_processes, ratio
from jobs.recipe.losses import bce_fake, bce_real, hinge_fake, hinge_generator, hinge_real

GAN = Literal["nsgan", "lsgan", "hinge"]


def discriminator_loss(gan: GAN, real: Tensor, fake: Tensor) -> Tensor:
    """Half the sum of the losses on real and on fake logits, any shape; for every choice of GAN."""
    if gan == "nsgan":
        return (bce_real(real) + bce_fake(fake)) / 2
    if gan == "lsgan":  # the code squares probabilities, not logits
        return (_square(1 - torch.sigmoid(real)) + _square(torch.sigmoid(fake))) / 2
    return (hinge_real(real) + hinge_fake(fake)) / 2


def generator_loss(gan: GAN, fake: Tensor) -> Tensor:
    """The generator's adversarial loss on logits of its fakes, any shape."""
    if gan == "nsgan":
        return bce_real(fake)
    if gan == "lsgan":
        return _square(1 - torch.sigmoid(fake))
    return hinge_generator(fake)


def l1_by_hole(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference over all pixels, divided by the share of the hole in the batch.

    predicted, image: (N, 3, H, W); mask: (N, 1, H, W). A batch without a hole counts as one with a hole of one pixel.
    """
    # The shares of all processes are summed, so the guard is, too.
    return ratio(F.l1_loss(predicted, image), mask.mean(), at_least=num_processes() / mask[0].numel())


def _square(error: Tensor) -> Tensor:
    return error.square().mean()
