"""EdgeConnect's own losses: its choice of adversarial loss, L1 by hole size, style in the hole. Images in [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.layers.vgg import VGG19
from jobs.recipe.collectives import num_processes, ratio
from jobs.recipe.losses import bce_fake, bce_real, hinge_fake, hinge_generator, hinge_real, perceptual, style

GAN = Literal["nsgan", "lsgan", "hinge"]

PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


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


def perceptual_and_style(vgg: VGG19, predicted: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The perceptual loss on whole images and the style loss on their holes, from one pass of VGG-19 over each.

    predicted, image: (N, 3, H, W) in [0, 1]; mask: (N, 1, H, W).
    """
    features = vgg(torch.cat([predicted, predicted * mask]))  # {layer: (2 N, C, H', W')}, wholes, then holes
    with torch.no_grad():
        targets = vgg(torch.cat([image, image * mask]))

    def halves(found: dict[str, Tensor], names: tuple[str, ...], half: int) -> list[Tensor]:
        return [found[name].chunk(2)[half] for name in names]

    return (
        perceptual(halves(features, PERCEPTUAL_LAYERS, 0), halves(targets, PERCEPTUAL_LAYERS, 0)),
        style(halves(features, STYLE_LAYERS, 1), halves(targets, STYLE_LAYERS, 1)),
    )


def _square(error: Tensor) -> Tensor:
    return error.square().mean()
