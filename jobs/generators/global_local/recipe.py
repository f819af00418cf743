"""Recipe of GLCIC: train the completion network, then the discriminator, then both."""

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
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, make_networks
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build GLCIC with initial weights from torch's global generator."""
    colour = (config.mean_red, config.mean_green, config.mean_blue)
    makers = {
        "generator": lambda: Generator(width=config.width, mean=tuple(2 * value / 255 - 1 for value in colour)),
        "generator_d": lambda: Discriminator(
            image_size=config.image_size,
            local_size=config.local_size,
            width=config.d_width,
            units=config.d_units,
            global_layers=config.d_global_layers,
        ),
    }
    networks = make_networks(makers, for_training=for_training)
    rates = {"generator": config.learning_rate, "generator_d": config.d_learning_rate}

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        return {"output": networks["generator"](batch.image, batch.mask)}

    def finish(outputs: Outputs, batch: Batch) -> Outputs:
        return {"output": blend(outputs["output"], batch.image, batch.mask)} if config.blend else outputs

    return Recipe(
        networks=networks,
        optimizers={name: _optimizer(config, network, rates[name]) for name, network in networks.items()},
        phases=_phases(config) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=4,
        finish=finish,
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    completion_terms = _completion_terms(config)
    train_discriminator = Update(networks=("generator_d",), terms=_discriminator_terms(config))
    train_jointly = Update(networks=("generator",), terms=_joint_terms(config, completion_terms))
    return (
        Phase(
            name="completion",
            steps=config.completion_steps,
            forward=_forward,
            updates=(Update(networks=("generator",), terms=completion_terms),),
        ),
        Phase(
            name="discriminator",
            steps=config.discriminator_steps,
            forward=_forward,
            updates=(train_discriminator,),
            train_mode=("generator",),  # batch statistics as in the phases around it
        ),
        Phase(
            name="joint",
            steps=config.joint_steps,
            forward=_forward,
            updates=(train_discriminator, train_jointly),
        ),
    )


def _forward(networks: Networks, batch: Batch) -> Outputs:
    raw = networks["generator"](batch.image, batch.mask)
    return {"raw": raw, "completed": composite(raw, batch.image, batch.mask)}


def _judge(networks: Networks, image: Tensor, starts: Tensor, size: int) -> Tensor:
    """Score images together with their windows of size x size pixels, which begin at `starts`."""
    return networks["generator_d"](image, crop_windows(image, starts, size))


def _discriminator_terms(config: Config) -> Losses:
    size = config.local_size

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # Real and completed images need a pass each: they must not share the statistics of batch normalisation.
        real = _judge(networks, batch.image, random_windows(batch, size), size)
        fake = _judge(networks, outputs["completed"].detach(), window_around_hole(batch.mask, size), size)
        return {"d_real": bce_real(real), "d_fake": bce_fake(fake)}

    return terms


def _completion_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        error = reconstruction(outputs["raw"], batch.image, batch.mask)
        return {"reconstruction": config.reconstruction_weight * error}

    return terms


def _joint_terms(config: Config, completion_terms: Losses) -> Losses:
    size = config.local_size

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        fake = _judge(networks, outputs["completed"], window_around_hole(batch.mask, size), size)
        return completion_terms(networks, batch, outputs) | {"adversarial": config.adversarial_weight * bce_real(fake)}

    return terms


def random_windows(batch: Batch, size: int) -> Tensor:
    """Draw a window per sample for the real images, independently of the hole (M_d of the paper).

    size: side of the windows, in pixels. Every place inside the image is equally likely.
    Returns first rows and columns, int64 (N, 2).
    """
    height, width = batch.image.shape[-2:]
    places = [(batch.uniform(n).double() * (side - size + 1)).long() for n, side in enumerate((height, width))]
    return torch.stack(places, dim=1)


def _optimizer(config: Config, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(network.parameters(), learning_rate)  # rho 0.9, eps 1e-6
    return torch.optim.Adam(network.parameters(), learning_rate, (config.beta1, config.beta2), fused=True)
