"""Recipe of Neural Patch Synthesis: train the content network; inpaint with it and the texture stage."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators import context_encoder
from jobs.generators.context_encoder.networks import central_hole
from jobs.generators.context_encoder.recipe import build as build_content_network
from jobs.generators.context_encoder.recipe import check_centre
from jobs.generators.neural_patch_synthesis import Config
from jobs.generators.neural_patch_synthesis.texture import build_vgg, refine
from jobs.layers.composite import composite
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Update


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build the content network, with weights from torch's global generator, and the texture stage's VGG-19."""
    recipe = build_content_network(content_config(config), for_training=for_training)
    vgg = build_vgg(config) if config.has_texture_stage else None

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        content = _predict_content(networks["generator"], batch, config)
        if vgg is None:
            return {"output": content}
        filled = composite(content, batch.image, batch.mask)
        return {"output": refine(vgg, filled, batch.mask, config), "content": content}

    phases = tuple(_at_side(phase, config.content_size) for phase in recipe.phases)
    return replace(recipe, phases=phases, inpaint=inpaint)


def _at_side(phase: Phase, side: int) -> Phase:
    """Return a phase that sees batches of any size in the size of the content network, as filling does."""

    def resize(batch: Batch) -> Batch:
        return replace(batch, image=_pool_image(batch, side), mask=_pool_mask(batch, side))

    def at_side(update: Update) -> Update:
        terms = update.terms
        return replace(update, terms=lambda networks, batch, outputs: terms(networks, resize(batch), outputs))

    forward = phase.forward
    return replace(
        phase,
        forward=lambda networks, batch: forward(networks, resize(batch)),
        updates=tuple(map(at_side, phase.updates)),
    )


def content_config(config: Config) -> context_encoder.Config:
    """Return the settings of the content network, a Context Encoder with a dense bottleneck and its training."""
    return context_encoder.Config(
        variant=config.variant,
        image_size=config.content_size,
        bottleneck="conv",
        bottleneck_units=config.bottleneck_units,
        width=config.width,
        mask_channel=False,
        fill_red=config.fill_red,
        fill_green=config.fill_green,
        fill_blue=config.fill_blue,
        rec_region="image",
        overlap=config.overlap,
        overlap_weight=config.overlap_weight,
        reconstruction_weight=config.reconstruction_weight,
        adversarial_weight=config.adversarial_weight,
        learning_rate=config.learning_rate,
        d_learning_rate=config.d_learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        batch_size=config.batch_size,
        steps=config.steps,
    )


def _predict_content(generator: torch.nn.Module, batch: Batch, config: Config) -> Tensor:
    """Predict the images of a batch of any size; the centre variant predicts only the square in the middle.

    Returns (N, 3, H, W) in [-1, 1].
    Raises UserError if a mask reaches beyond the centre variant's hole.
    """
    square, size = (config.content_size,) * 2, batch.image.shape[-2:]
    image, mask = _pool_image(batch, config.content_size), _pool_mask(batch, config.content_size)
    if config.variant == "centre":
        image = _centre_content(generator, image, mask, config)
    else:
        image = generator(image, mask)
    return image if size == square else F.interpolate(image, size, mode="bilinear", antialias=True)


def _pool_image(batch: Batch, side: int) -> Tensor:
    """Return the images (N, 3, S, S) in the size of the content network: means over windows."""
    return F.adaptive_avg_pool2d(batch.image, (side, side))


def _pool_mask(batch: Batch, side: int) -> Tensor:
    """Return the masks (N, 1, S, S): maxima over the windows of `_pool_image`, so that no known cell hides a pixel."""
    return F.adaptive_max_pool2d(batch.mask, (side, side))


def _centre_content(generator: torch.nn.Module, image: Tensor, mask: Tensor, config: Config) -> Tensor:
    """Predict the square in the middle and put it into the image (N, 3, S, S)."""
    check_centre(mask, config.overlap)
    quarter = config.content_size // 4
    laid = image.clone()
    laid[..., quarter:-quarter, quarter:-quarter] = generator(image, central_hole(mask, config.overlap))
    return laid
