"""Training of SACA: one phase, in which the discriminator steps first, then the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from files.errors import UserError
from jobs.generators.saca import Config
from jobs.generators.saca.losses import (
    l1_by_hole,
    negative_entropy,
    perceptual_and_style,
    supervision,
)
from jobs.generators.saca.networks import Discriminator, Generator
from jobs.layers.perceptual import PERCEPTUAL_LAYERS, STYLE_LAYERS
from jobs.layers.vgg import VGG19, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import hinge_fake, hinge_generator, hinge_real

SMALLEST_SIDE = 5  # padded to 8
PLACES = {"both": ("bottleneck", "dec128"), "bottleneck": ("bottleneck",), "dec128": ("dec128",), "neither": ()}


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build SACA. Initial weights are drawn from torch's global generator."""
    makers = {
        "generator": lambda: Generator(
            width=config.width,
            residual_blocks=config.residual_blocks,
            regions=config.regions,
            saca_at=PLACES[config.saca_at],
        ),
        "generator_d": lambda: Discriminator(config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    uses_vgg = for_training and bool(config.perceptual_weight or config.style_weight)
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def forward(networks: Networks, batch: Batch) -> Outputs:
        output, assignments = networks["generator"](batch.image, batch.mask)
        return {"output": output} | {f"assignment_{n}": logits for n, logits in enumerate(assignments)}

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # One pass over both: one power iteration of spectral norm per step; no batch statistics would mix.
        scores = networks["generator_d"](torch.cat((batch.image, outputs["output"].detach())))
        real, fake = scores.chunk(2)
        return {"d_real": 0.5 * hinge_real(real), "d_fake": 0.5 * hinge_fake(fake)}

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        image, predicted = to_unit(batch.image), to_unit(outputs["output"])
        scores = networks["generator_d"](outputs["output"])
        terms = {
            "l1": config.l1_weight * l1_by_hole(predicted, image, batch.mask),
            "adversarial": config.adversarial_weight * hinge_generator(scores),
        }
        if vgg is not None:
            perceptual, style = perceptual_and_style(vgg, predicted, image, batch.mask)
            terms["perceptual"] = config.perceptual_weight * perceptual
            terms["style"] = config.style_weight * style
        assignments = [logits for name, logits in outputs.items() if name.startswith("assignment_")]
        if config.supervision_weight:
            terms["supervision"] = config.supervision_weight * supervision(assignments, _labels(batch))
        if config.entropy_weight:
            terms["entropy"] = config.entropy_weight * negative_entropy(assignments)
        return terms

    joint = Phase(
        name="joint",
        steps=config.steps,
        forward=forward,
        updates=alternating(discriminator_terms, generator_terms),
    )
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(joint,) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=4,
        smallest_side=SMALLEST_SIDE,
        columns=("semantics",) if config.supervision_weight else (),
    )


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    return {"output": networks["generator"](batch.image, batch.mask)[0]}


def _labels(batch: Batch) -> Tensor:
    if batch.semantics is None:
        raise UserError("supervised SACA needs labels; give the batch the column 'semantics'")
    return batch.semantics
