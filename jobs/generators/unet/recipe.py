"""Recipe of the plain U-Net: L1 over the whole image and, on request, a patch discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.unet import Config, FirstGuess
from jobs.generators.unet.first_guess import diffuse, roughness
from jobs.layers.composite import composite
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.unet import UNet
from jobs.recipe.batch import Batch
from jobs.recipe.contract import (
    Losses,
    Networks,
    Outputs,
    Phase,
    Recipe,
    Terms,
    Update,
    adam,
    alternating,
    make_networks,
)
from jobs.recipe.losses import bce_fake, bce_real


class Generator(nn.Module):
    """Predict an image from its known pixels and the mask by a U-Net.

    width: channels of the first level.
    levels: halvings down to the deepest map.
    first_guess: "none", the network sees 0 in the hole; "diffusion", it sees a filled hole and predicts the difference.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1], H and W multiples of 2^levels. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W): in (-1, 1) without a first guess; else unbounded, and the image itself outside the hole.
    """

    def __init__(self, *, width: int, levels: int, first_guess: FirstGuess = "none") -> None:
        super().__init__()
        self.unet = UNet(4, 3, width=width, levels=levels)
        self.first_guess = first_guess
        if first_guess == "diffusion":
            nn.init.zeros_(self.unet.ups[-1][0].weight)  # training starts from the guess itself

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        if self.first_guess == "diffusion":
            guess = diffuse(image, mask)
            # Instance norm hides the contrast of an image from the deeper levels, so the difference is scaled by it.
            return guess + mask * roughness(guess, mask) * self.unet(torch.cat((guess, mask), dim=1))
        return torch.tanh(self.unet(torch.cat((image * (1 - mask), mask), dim=1)))


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build the U-Net with initial weights from torch's global generator."""
    makers = {"generator": lambda: Generator(width=config.width, levels=config.levels, first_guess=config.first_guess)}
    generator_terms = _generator_terms(config)
    updates = (Update(networks=("generator",), terms=generator_terms),)
    if config.adversarial_weight:
        makers["generator_d"] = lambda: PatchDiscriminator(width=config.d_width)
        updates = alternating(_discriminator_terms, generator_terms)
    networks = make_networks(makers, for_training=for_training)
    phases = (Phase(name="train", steps=config.steps, forward=_forward, updates=updates),)
    betas = (config.beta1, config.beta2)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(networks, config.learning_rate, config.d_learning_rate, betas),
        phases=phases if for_training else (),
        inpaint=lambda networks, batch: {"output": networks["generator"](batch.image, batch.mask).clamp(-1, 1)},
        batch_size=config.batch_size,
        multiple=2**config.levels,
    )


def _forward(networks: Networks, batch: Batch) -> Outputs:
    raw = networks["generator"](batch.image, batch.mask)
    return {"raw": raw, "completed": composite(raw, batch.image, batch.mask)}


def _discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
    fake = outputs["completed"].detach().to(batch.image.dtype)
    # One pass over both: one power iteration of spectral norm per step.
    real_scores, fake_scores = networks["generator_d"](torch.cat((batch.image, fake))).chunk(2)
    return {"d_real": bce_real(real_scores), "d_fake": bce_fake(fake_scores)}


def _generator_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        terms = {"l1": config.l1_weight * F.l1_loss(outputs["raw"].to(batch.image.dtype), batch.image)}
        if config.adversarial_weight:
            scores = networks["generator_d"](outputs["completed"])
            terms["adversarial"] = config.adversarial_weight * bce_real(scores)
        return terms

    return terms
