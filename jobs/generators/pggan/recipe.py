"""Recipe of PGGAN: L1 over the whole image, a global and a patch adversarial loss, one phase."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn import functional as F

from jobs.generators.pggan import Config
from jobs.generators.pggan.networks import Discriminator, Generator
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build PGGAN with initial weights from torch's global generator."""
    makers = {
        "generator": lambda: Generator(
            width=config.width,
            halvings=2 if config.variant == "dres" else 3,
            dilations=_dilations(config),
            resize=config.resize,
        ),
        "generator_d": lambda: Discriminator(
            image_size=config.image_size, width=config.d_width, patch_fc=config.patch_fc
        ),
    }
    networks = make_networks(makers, for_training=for_training)
    phase = Phase(
        name="train",
        steps=config.steps,
        forward=_forward(config),
        updates=alternating(_discriminator_terms, _generator_terms(config)),
    )
    betas = (config.beta1, config.beta2)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(networks, config.learning_rate, config.d_learning_rate, betas),
        phases=(phase,) if for_training else (),
        inpaint=lambda networks, batch: {"output": networks["generator"](batch.image, batch.mask)},
        batch_size=config.batch_size,
        multiple=config.multiple,
        smallest_side=config.smallest_side,
    )


def _dilations(config: Config) -> tuple[tuple[int, int], ...]:
    """Return the dilations of the two convolutions of each residual block."""
    if config.variant == "res":
        return ((1, 1),) * config.blocks
    rates = [2**n for n in range(config.blocks)]
    return tuple((rate, 1) if config.block == "dilated_first" else (1, rate) for rate in rates)


def _forward(config: Config) -> Callable[[Networks, Batch], Outputs]:
    def forward(networks: Networks, batch: Batch) -> Outputs:
        raw = networks["generator"](batch.image, batch.mask)
        judged = raw if config.adversarial_on == "raw" else composite(raw, batch.image, batch.mask)
        return {"raw": raw, "judged": judged}

    return forward


def _discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
    # Real and fake images need a pass each: they must not share the statistics of batch normalisation.
    real_whole, real_patches = networks["generator_d"](batch.image)
    fake_whole, fake_patches = networks["generator_d"](outputs["judged"].detach())
    return {
        "d_real_global": bce_real(real_whole),
        "d_fake_global": bce_fake(fake_whole),
        "d_real_patch": bce_real(real_patches),
        "d_fake_patch": bce_fake(fake_patches),
    }


def _generator_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        whole, patches = networks["generator_d"](outputs["judged"])
        return {
            "reconstruction": config.reconstruction_weight * F.l1_loss(outputs["raw"], batch.image),
            "adversarial_global": config.global_weight * bce_real(whole),
            "adversarial_patch": config.patch_weight * bce_real(patches),
        }

    return terms
