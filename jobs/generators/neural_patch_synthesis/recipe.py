"""Neural Patch Synthesis: the content network, ready to train, and the texture stage after it when inpainting."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from jobs.generators.neural_patch_synthesis import Config
from jobs.generators.neural_patch_synthesis.texture import build_vgg, refine
from jobs.layers.composite import composite
from jobs.layers.context_encoder import (
    Discriminator,
    Generator,
    central_half,
    central_hole,
    overlap_weights,
    reconstruction,
)
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, adam, alternating
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config) -> Recipe:
    """The content network with fresh weights, drawn from torch's global generator, and the texture stage's VGG-19."""
    is_centre = config.variant == "centre"
    predicted_size = config.image_size // 2 if is_centre else config.image_size
    generator = Generator(
        image_size=config.image_size,
        variant=config.variant,
        width=config.width,
        bottleneck="conv",
        bottleneck_units=config.bottleneck_units,
        mask_channel=False,
        fill=tuple(2 * value / 255 - 1 for value in (config.fill_red, config.fill_green, config.fill_blue)),
    )
    discriminator = Discriminator(size=predicted_size, width=config.width)
    ring = overlap_weights(predicted_size, config.overlap, config.overlap_weight) if is_centre else None
    vgg = build_vgg(config) if config.has_texture_stage else None

    def target(batch: Batch) -> Tensor:
        return central_half(batch.image) if is_centre else batch.image

    def forward(networks: Networks, batch: Batch) -> Outputs:
        hole = central_hole(batch.mask, config.overlap) if is_centre else batch.mask
        return {"prediction": networks["generator"](batch.image, hole)}

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # Two passes, not one over both: batch normalisation must see real and generated images apart.
        judge = networks["generator_d"]
        return {
            "d_real": bce_real(judge(target(batch))),
            "d_fake": bce_fake(judge(outputs["prediction"].detach())),
        }

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        prediction = outputs["prediction"]
        weights = None if ring is None else ring.to(prediction)
        return {
            "reconstruction": config.reconstruction_weight * reconstruction(prediction, target(batch), weights),
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](prediction)),
        }

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        content = _predict_content(networks["generator"], batch, config)
        if vgg is None:
            return {"output": content}
        filled = composite(content, batch.image, batch.mask)
        return {"output": refine(vgg, filled, batch.mask, config), "content": content}

    networks = {"generator": generator, "generator_d": discriminator}
    return Recipe(
        networks=networks,
        optimizers=adam(networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)),
        phases=(
            Phase(
                name="joint",
                steps=config.steps,
                forward=forward,
                updates=alternating(discriminator_terms, generator_terms),
            ),
        ),
        inpaint=inpaint,
        batch_size=config.batch_size,
    )


def _predict_content(generator: torch.nn.Module, batch: Batch, config: Config) -> Tensor:
    """What the content network says of an image of any size: (N, 3, H, W) in [-1, 1]; centre variant: of its square.

    Raises ValueError if a mask reaches beyond the centre variant's square.
    """
    square, size = (config.image_size,) * 2, batch.image.shape[-2:]
    # Means and maxima are taken over the same windows: a cell that counts as known has no hidden pixel in it.
    image = F.adaptive_avg_pool2d(batch.image, square)
    mask = F.adaptive_max_pool2d(batch.mask, square)
    if config.variant == "centre":
        image = _centre_content(generator, image, mask, config)
    else:
        image = generator(image, mask)
    return image if size == square else F.interpolate(image, size, mode="bilinear", antialias=True)


def _centre_content(generator: torch.nn.Module, image: Tensor, mask: Tensor, config: Config) -> Tensor:
    """The square's prediction, laid into the image (N, 3, S, S)."""
    hole = central_hole(mask, config.overlap)
    if (mask > hole).any():
        first = config.image_size // 4 + config.overlap
        rule = f"rows and columns {first} to {config.image_size - first - 1} of {config.image_size}"
        raise UserError(f"variant centre fills {rule} only, but a mask reaches beyond them; use variant random")
    quarter = config.image_size // 4
    laid = image.clone()
    laid[..., quarter:-quarter, quarter:-quarter] = generator(image, hole)
    return laid
