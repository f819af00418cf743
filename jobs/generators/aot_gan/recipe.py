"""Recipe of AOT-GAN: in every step the generator's update, then the discriminator's on the same prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.aot_gan import Config
from jobs.generators.aot_gan.losses import (
    PERCEPTUAL_LAYERS,
    STYLE_LAYERS,
    blur,
    discriminator_loss,
    generator_loss,
    resized,
)
from jobs.generators.aot_gan.networks import SMALLEST_SIDE, Discriminator, Generator
from jobs.layers.composite import composite
from jobs.layers.vgg import VGG19, imagenet_normalised, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam, make_networks
from jobs.recipe.losses import bce_fake, bce_real, perceptual, style


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build AOT-GAN with initial weights from torch's global generator."""
    makers = {
        "generator": lambda: Generator(width=config.width, blocks=config.blocks, gate_norm=config.gate_norm),
        "generator_d": lambda: Discriminator(width=config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config) if for_training else (),
        inpaint=lambda networks, batch: {"output": networks["generator"](batch.image, batch.mask)},
        batch_size=config.batch_size,
        multiple=4,
        smallest_side=SMALLEST_SIDE,
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    return (
        Phase(
            name="train",
            steps=config.steps,
            forward=_forward,
            updates=(
                Update(networks=("generator",), terms=_generator_terms(config)),
                Update(networks=("generator_d",), terms=_discriminator_terms(config)),
            ),
        ),
    )


def _forward(networks: Networks, batch: Batch) -> Outputs:
    raw = networks["generator"](batch.image, batch.mask).to(batch.image.dtype)
    return {"raw": raw, "completed": composite(raw, batch.image, batch.mask)}


def _generator_terms(config: Config) -> Losses:
    features_of = _features(config)
    released = config.sm_targets == "released"

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        raw, image, mask = outputs["raw"], batch.image, batch.mask
        scores = networks["generator_d"](outputs["completed"])
        adversarial = (
            bce_real(scores)
            if config.gan == "nsgan"
            else generator_loss(resized(scores, mask), mask, released=released)
        )
        terms = {
            "l1": config.l1_weight * F.l1_loss(raw, image),
            "adversarial": config.adversarial_weight * adversarial,
        }
        if features_of is not None:
            features = features_of(raw)
            with torch.no_grad():
                targets = features_of(image)
            content, texture = (
                ([features[name] for name in layers], [targets[name] for name in layers])
                for layers in (PERCEPTUAL_LAYERS, STYLE_LAYERS)
            )
            terms["perceptual"] = config.perceptual_weight * perceptual(*content)
            terms["style"] = config.style_weight * style(*texture)
        return terms

    return terms


def _features(config: Config) -> Callable[[Tensor], dict[str, Tensor]] | None:
    """Return the function from images in [-1, 1] to features; None if no loss needs them."""
    if not (config.perceptual_weight or config.style_weight):
        return None
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, config.features, config.features_seed)

    def features_of(image: Tensor) -> dict[str, Tensor]:
        return vgg(imagenet_normalised(to_unit(image)))

    return features_of


def _discriminator_terms(config: Config) -> Losses:
    released = config.sm_targets == "released"

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # One pass over both: one power iteration of spectral norm per step.
        scores = networks["generator_d"](torch.cat((outputs["completed"].detach(), batch.image)))
        fake, real = scores.chunk(2)
        if config.gan == "nsgan":
            return {"d_real": bce_real(real), "d_fake": bce_fake(fake)}
        soft_mask = blur(batch.mask, config.soft_kernel, config.soft_sigma)
        fake, real = resized(fake, batch.mask), resized(real, batch.mask)
        return {"d_soft_mask": discriminator_loss(real, fake, soft_mask, released=released)}

    return terms
