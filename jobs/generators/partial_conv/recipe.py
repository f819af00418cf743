"""Training of PartialConv: one network without a discriminator, trained, then fine-tuned with frozen batch norms."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from jobs.generators.partial_conv import Config
from jobs.generators.partial_conv.losses import VGG_LAYERS, pixel_losses, scaled, total_variation
from jobs.generators.partial_conv.networks import Generator
from jobs.layers.composite import composite
from jobs.layers.perceptual import of_output_and_completed
from jobs.layers.vgg import VGG16
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update
from jobs.recipe.padding import crop


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build PartialConv. Initial weights are drawn from torch's global generator."""
    generator = Generator(width=config.width, levels=config.levels)
    uses_vgg = for_training and (config.perceptual_weight or config.style_out_weight or config.style_comp_weight)
    vgg = VGG16(VGG_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        output, _ = networks["generator"](batch.image, batch.mask)
        completed = composite(output, batch.image, batch.mask)
        valid, hole = pixel_losses(
            scaled(output, config.pixel_scale), scaled(batch.image, config.pixel_scale), batch.mask
        )
        smoothness = total_variation(scaled(completed, config.pixel_scale), batch.mask)
        weighted = {
            "valid": config.valid_weight * valid,
            "hole": config.hole_weight * hole,
            "tv": config.tv_weight * smoothness,
        }
        if vgg is not None:
            perceptual, style_out, style_comp = of_output_and_completed(
                lambda seen: vgg(scaled(seen, "imagenet")), output, completed, batch.image
            )
            weighted["perceptual"] = config.perceptual_weight * perceptual
            weighted["style_out"] = config.style_out_weight * style_out
            weighted["style_comp"] = config.style_comp_weight * style_comp
        return weighted

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        height, width = batch.image.shape[-2:]
        # Fill up with hole instead of mirroring, since every layer counts pixels beyond the border as hole, too.
        padding = (0, -width % generator.multiple, 0, -height % generator.multiple)
        image, mask = F.pad(batch.image, padding), F.pad(batch.mask, padding, value=1.0)
        output, unfilled = networks["generator"](image, mask)
        return {"output": crop(output.clamp(-1, 1), height, width), "unfilled": crop(unfilled, height, width)}

    step = (Update(networks=("generator",), terms=terms),)
    phases = (
        Phase(name="train", steps=config.train_steps, updates=step),
        Phase(
            name="finetune",
            steps=config.finetune_steps,
            updates=step,
            learning_rates={"generator": config.finetune_learning_rate},
            frozen=tuple(f"generator.{name}" for name in generator.encoder_norms),
        ),
    )
    return Recipe(
        networks={"generator": generator},
        optimizers={
            "generator": torch.optim.Adam(
                generator.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
            )
        },
        phases=phases if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
    )
