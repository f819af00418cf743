"""GLCIC, ready to train: completion network, then discriminator, then both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.generators.global_local import Config
from jobs.generators.global_local.blending import blend
from jobs.generators.global_local.losses import reconstruction
from jobs.generators.global_local.networks import Discriminator, Generator
from jobs.layers.composite import composite
from jobs.layers.windows import crop_windows, window_around_hole
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config) -> Recipe:
    """GLCIC with fresh weights, drawn from torch's global generator."""
    colour = (config.mean_red, config.mean_green, config.mean_blue)
    generator = Generator(width=config.width, mean=tuple(2 * value / 255 - 1 for value in colour))
    discriminator = Discriminator(
        image_size=config.image_size,
        local_size=config.local_size,
        width=config.d_width,
        units=config.d_units,
        global_layers=config.d_global_layers,
    )

    def forward(networks: Networks, batch: Batch) -> Outputs:
        raw = networks["generator"](batch.image, batch.mask)
        return {"raw": raw, "completed": composite(raw, batch.image, batch.mask)}

    def judge(networks: Networks, image: Tensor, starts: Tensor) -> Tensor:
        return networks["generator_d"](image, crop_windows(image, starts, config.local_size))

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # Two passes, not one over both: batch normalisation must see real and completed images apart.
        real = judge(networks, batch.image, random_windows(batch, config.local_size))
        around_hole = window_around_hole(batch.mask, config.local_size)
        fake = judge(networks, outputs["completed"].detach(), around_hole)
        return {"d_real": bce_real(real), "d_fake": bce_fake(fake)}

    def completion_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        error = reconstruction(outputs["raw"], batch.image, batch.mask)
        return {"reconstruction": config.reconstruction_weight * error}

    def joint_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        around_hole = window_around_hole(batch.mask, config.local_size)
        fake = judge(networks, outputs["completed"], around_hole)
        return completion_terms(networks, batch, outputs) | {"adversarial": config.adversarial_weight * bce_real(fake)}

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        return {"output": networks["generator"](batch.image, batch.mask)}

    def finish(outputs: Outputs, batch: Batch) -> Outputs:
        return {"output": blend(outputs["output"], batch.image, batch.mask)} if config.blend else outputs

    train_discriminator = Update(networks=("generator_d",), terms=discriminator_terms)
    return Recipe(
        networks={"generator": generator, "generator_d": discriminator},
        optimizers={
            "generator": _optimizer(config, generator, config.learning_rate),
            "generator_d": _optimizer(config, discriminator, config.d_learning_rate),
        },
        phases=(
            Phase(
                name="completion",
                steps=config.completion_steps,
                forward=forward,
                updates=(Update(networks=("generator",), terms=completion_terms),),
            ),
            Phase(
                name="discriminator",
                steps=config.discriminator_steps,
                forward=forward,
                updates=(train_discriminator,),
                train_mode=("generator",),  # batch statistics as in the phases around it
            ),
            Phase(
                name="joint",
                steps=config.joint_steps,
                forward=forward,
                updates=(train_discriminator, Update(networks=("generator",), terms=joint_terms)),
            ),
        ),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=4,
        finish=finish,
    )


def random_windows(batch: Batch, size: int) -> Tensor:
    """First rows and columns of a size x size window per sample, each place equally likely: int64 (N, 2).

    The real image's window (M_d of the paper), drawn independently of the hole.
    """
    height, width = batch.image.shape[-2:]
    places = [(batch.uniform(n).double() * (side - size + 1)).long() for n, side in enumerate((height, width))]
    return torch.stack(places, dim=1)


def _optimizer(config: Config, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(network.parameters(), learning_rate)  # rho 0.9, eps 1e-6
    return torch.optim.Adam(network.parameters(), learning_rate, (config.beta1, config.beta2))
