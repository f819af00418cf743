"""Training of Shift-Net: one phase, in which the discriminator steps first, then the generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.shift_net import Config
from jobs.generators.shift_net.losses import VGG_LAYERS, crop_hole, discounted_l1, guidance, style_and_content
from jobs.generators.shift_net.networks import Generator
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.vgg import VGG16
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build Shift-Net. Initial weights are drawn from torch's global generator."""
    makers = {
        "generator": lambda: Generator(
            width=config.width,
            levels=config.levels,
            mask_channel=config.mask_channel,
            fill=config.fill,
            mask_pool=config.mask_pool,
        ),
        "generator_d": lambda: PatchDiscriminator(width=config.d_width, spectral=True, norm=True),
    }
    networks = make_networks(makers, for_training=for_training)
    is_v2 = config.losses == "v2"
    uses_vgg = for_training and is_v2 and bool(config.style_weight or config.content_weight)
    vgg = VGG16(VGG_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def judged(image: Tensor, mask: Tensor) -> Tensor:
        """Return the pixels that discriminator and VGG-16 see: the hole alone if hole_size is given, else all."""
        return crop_hole(image, mask, config.hole_size) if config.hole_size else image

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        real = judged(batch.image, batch.mask)
        fake = judged(outputs["output"].detach(), batch.mask)
        # One pass over both: one power iteration of spectral norm per step; the other norms are per sample.
        real_scores, fake_scores = networks["generator_d"](torch.cat((real, fake.to(real.dtype)))).chunk(2)
        return {"d_real": 0.5 * bce_real(real_scores), "d_fake": 0.5 * bce_fake(fake_scores)}

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        output = outputs["output"].to(batch.image.dtype)
        fake, real = judged(output, batch.mask), judged(batch.image, batch.mask)
        terms = {
            "l1": config.l1_weight * F.l1_loss(output, batch.image),
            "guidance": config.guidance_weight * guidance(outputs["decoded"], outputs["target"], outputs["hole"]),
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](fake)),
        }
        if is_v2 and config.hole_size:
            terms["hole_l1"] = config.hole_l1_weight * discounted_l1(fake, real)
        if vgg is not None:
            style, content = style_and_content(vgg, fake, real)
            terms |= {"style": config.style_weight * style, "content": config.content_weight * content}
        return terms

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        return {"output": networks["generator"](batch.image, batch.mask)["output"]}

    joint = Phase(
        name="joint",
        steps=config.steps,
        forward=_forward,
        updates=alternating(discriminator_terms, generator_terms),
    )
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(joint,) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=2**config.levels,
    )


def _forward(networks: Networks, batch: Batch) -> Outputs:
    return networks["generator"](batch.image, batch.mask, batch.image)
