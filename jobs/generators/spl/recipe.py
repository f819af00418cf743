"""Training of SPL: image and prior together, discriminator first; then the same at a lower rate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.spl import Config
from jobs.generators.spl.losses import hole_weighted_l1
from jobs.generators.spl.networks import Generator
from jobs.generators.spl.teacher import Teacher, count_channels
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.vgg import to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import bce_fake, bce_real

SMALLEST_SIDE = 9  # padded to 12, so 3 in the modulated blocks, which mirror 2


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build SPL. Initial weights are drawn from torch's global generator.

    Raises WeightsError for a teacher of unknown name.
    """
    makers = {
        "generator": lambda: _generator(config, count_channels(config.teacher, config.teacher_width)),
        "generator_d": lambda: PatchDiscriminator(width=config.d_width, bias=False, deviation=None),
    }
    networks = make_networks(makers, for_training=for_training)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=4,
        smallest_side=SMALLEST_SIDE,
    )


def _generator(config: Config, prior_channels: int) -> Generator:
    return Generator(
        width=config.width,
        prior_channels=prior_channels,
        growth=config.growth,
        dense_blocks=config.dense_blocks,
        dense_layers=config.dense_layers,
        residual_blocks=config.residual_blocks,
        modulated_blocks=config.modulated_blocks,
        hidden=config.hidden,
        threshold=config.region_threshold,
        region_bias=config.region_bias,
        checkpoint_blocks=config.checkpoint_blocks,
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    # The teacher is not one of the networks: it is neither trained nor saved nor put into training mode.
    teacher = Teacher(config.teacher, width=config.teacher_width, seed=config.teacher_seed)
    image_terms = _image_terms(config)
    all_terms = _all_terms(config, teacher, image_terms)

    def phase(name: str, steps: int, *, decay: float, has_prior: bool) -> Phase:
        return Phase(
            name=name,
            steps=steps,
            forward=_forward,
            updates=alternating(_discriminator_terms, all_terms if has_prior else image_terms),
            learning_rates={
                "generator": decay * config.learning_rate,
                "generator_d": decay * config.d_learning_rate,
            },
            # Without the prior's loss, nothing reads the head.
            frozen=() if has_prior else ("generator.semantics.head",),
        )

    has_prior = config.prior_weight > 0
    return (
        phase("joint", config.joint_steps, decay=1.0, has_prior=has_prior),
        phase("decayed", config.decayed_steps, decay=config.decay, has_prior=has_prior),
        phase("without_prior", config.without_prior_steps, decay=config.decay, has_prior=False),
    )


def _forward(networks: Networks, batch: Batch) -> Outputs:
    output, prior = networks["generator"](batch.image, batch.mask)
    return {"output": output, "prior": prior}


def _discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
    both = torch.cat((to_unit(batch.image), to_unit(outputs["output"].detach())))
    # One pass over both: one power iteration of spectral norm per step; no batch statistics would mix.
    real, fake = networks["generator_d"](both).chunk(2)
    return {"d_real": 0.5 * bce_real(real), "d_fake": 0.5 * bce_fake(fake)}


def _image_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        output = to_unit(outputs["output"])
        l1 = hole_weighted_l1(output, to_unit(batch.image), batch.mask, config.l1_hole_weight)
        return {
            "l1": config.l1_weight * l1,
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](output)),
        }

    return terms


def _all_terms(config: Config, teacher: Teacher, image_terms: Losses) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        target = teacher(enlarged(to_unit(batch.image)))
        prior = hole_weighted_l1(outputs["prior"], target, batch.mask, config.prior_hole_weight)
        return image_terms(networks, batch, outputs) | {"prior": config.prior_weight * prior}

    return terms


def enlarged(image: Tensor) -> Tensor:
    """Enlarge images to twice their size, bilinearly: (N, 3, H, W) -> (N, 3, 2H, 2W)."""
    return F.interpolate(image, scale_factor=2, mode="bilinear", antialias=True)


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    return {"output": networks["generator"](batch.image, batch.mask)[0]}
