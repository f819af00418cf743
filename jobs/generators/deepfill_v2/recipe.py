"""Recipe of DeepFill v2: one phase, in which every step updates the discriminator, if any, then the generator."""

from __future__ import annotations

import torch
from torch import Tensor

from files.errors import UserError
from jobs.generators.deepfill_v2 import Config
from jobs.generators.deepfill_v2.losses import l1
from jobs.generators.deepfill_v2.networks import Discriminator, Generator
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update, adam, alternating, make_networks
from jobs.recipe.losses import hinge_fake, hinge_generator, hinge_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build DeepFill v2 with initial weights from torch's global generator."""
    networks = _make_networks(config, for_training)

    def forward(networks: Networks, batch: Batch) -> Outputs:
        hints: Outputs = {}
        if config.guided:
            kept = batch.uniform(0).view(-1, 1, 1, 1) >= config.sketch_dropout
            hints["sketch"] = _sketch(batch) * kept
        coarse, refined = networks["generator"](batch.image, batch.mask, **hints)
        return {"coarse": coarse, "refined": refined, **hints}

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        completed = composite(outputs["refined"].detach(), batch.image, batch.mask)
        # Real and completed images share a pass, and with it the power iteration: there are no batch statistics.
        scores = networks["generator_d"](
            torch.cat((batch.image, completed)),
            torch.cat((batch.mask, batch.mask)),
            **{name: torch.cat((hint, hint)) for name, hint in _hints(outputs).items()},
        )
        real, fake = scores.chunk(2)
        return {"d_real": 0.5 * hinge_real(real), "d_fake": 0.5 * hinge_fake(fake)}  # 0.5 as in the code

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        terms = {
            "coarse_l1": config.l1_weight * l1(outputs["coarse"], batch.image),
            "refined_l1": config.l1_weight * l1(outputs["refined"], batch.image),
        }
        if config.adversarial_weight:
            completed = composite(outputs["refined"], batch.image, batch.mask)
            scores = networks["generator_d"](completed, batch.mask, **_hints(outputs))
            terms["adversarial"] = config.adversarial_weight * hinge_generator(scores)
        return terms

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        hints = {"sketch": _sketch(batch)} if config.guided else {}
        coarse, refined = networks["generator"](batch.image, batch.mask, **hints)
        return {"output": refined, "coarse": coarse}

    joint = Phase(
        name="joint",
        steps=config.steps,
        forward=forward,
        updates=alternating(discriminator_terms, generator_terms)
        if config.adversarial_weight
        else (Update(networks=("generator",), terms=generator_terms),),
    )
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(joint,) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=8,
        columns=("edge",) if config.guided else (),
    )


def _make_networks(config: Config, for_training: bool) -> Networks:
    guided = config.guided
    makers = {"generator": lambda: Generator(width=config.width, guided=guided, mask_pool=config.mask_pool)}
    if config.adversarial_weight:
        makers["generator_d"] = lambda: Discriminator(
            width=config.d_width, guided=guided, last_activation=config.d_last_activation
        )
    return make_networks(makers, for_training=for_training)


def _sketch(batch: Batch) -> Tensor:
    """Return the lines inside the hole, (N, 1, H, W): those that a person drew, or else the edges."""
    lines = batch.edge if batch.sketch is None else batch.sketch
    if lines is None:
        raise UserError('guided DeepFill v2 needs batch.edge; read the column "edge" or pass zeros')
    return lines * batch.mask


def _hints(outputs: Outputs) -> Outputs:
    return {"sketch": outputs["sketch"]} if "sketch" in outputs else {}
