"""Training of SGE-Net: one phase, in which the discriminator steps first, then the generator."""

from __future__ import annotations

from functools import partial

import torch

from jobs.generators.sge_net import Config
from jobs.generators.sge_net.networks import Generator
from jobs.layers.composite import composite
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.semantic import (
    SMALLEST_MULTIPLE,
    check_labels,
    cross_entropy_of_all_scales,
    l1_of_all_scales,
)
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import hinge_fake, hinge_generator, hinge_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build SGE-Net. Initial weights are drawn from torch's global generator."""
    makers = {
        "generator": lambda: Generator(
            width=config.width,
            num_classes=config.num_classes,
            spade_hidden=config.spade_hidden,
            refined_shares=config.refined_shares,
        ),
        "generator_d": lambda: PatchDiscriminator(width=config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    rates = {"generator": config.learning_rate, "generator_d": config.d_learning_rate}

    def forward(networks: Networks, batch: Batch) -> Outputs:
        check_labels(batch.semantics, config.num_classes)
        predictions = networks["generator"](batch.image, batch.mask)
        return predictions | {"completed": composite(predictions["image0"], batch.image, batch.mask)}

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # One pass over both: one power iteration of spectral norm per step; no batch statistics would mix.
        scores = networks["generator_d"](torch.cat((batch.image, outputs["completed"].detach())))
        real, fake = scores.chunk(2)
        return {"d_real": hinge_real(real), "d_fake": hinge_fake(fake)}

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        scores = networks["generator_d"](outputs["completed"])
        return {
            "l1": config.l1_weight * l1_of_all_scales(outputs, batch.image),
            "segmentation": config.segmentation_weight * cross_entropy_of_all_scales(outputs, batch.semantics),
            "adversarial": config.adversarial_weight * hinge_generator(scores),
        }

    joint = Phase(
        name="joint",
        steps=config.steps,
        forward=forward,
        updates=alternating(discriminator_terms, generator_terms),
        learning_rates={name: partial(_halved, rate, config.halving_steps) for name, rate in rates.items()},
    )
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(joint,) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=SMALLEST_MULTIPLE,
        columns=("semantics",),
    )


def _halved(rate: float, halving_steps: tuple[int, ...], step: int) -> float:
    """Return the learning rate at a step, counted from 0."""
    return rate * 0.5 ** sum(step >= halving for halving in halving_steps)


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    return {"output": networks["generator"](batch.image, batch.mask, all_scales=False)["image0"]}
