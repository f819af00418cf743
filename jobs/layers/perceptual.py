"""Perceptual and style losses that at least two papers compute alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.recipe.losses import perceptual, style

PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def perceptual_and_style(
    features_of: Callable[[Tensor], dict[str, Tensor]], predicted: Tensor, image: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the perceptual loss of whole images and the style loss of their holes.

    Nazeri et al., "EdgeConnect", 2019, Sec. 3.2, as in the authors' code. One pass of VGG-19 computes the features of
    both.

    features_of: VGG-19: images (N, 3, H, W) in [0, 1] -> {layer: (N, C, h, w)} for both lists of layers.
    predicted, image: (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    features = features_of(torch.cat((predicted, predicted * mask)))  # {layer: (2 N, C, h, w)}, images, then holes
    with torch.no_grad():
        targets = features_of(torch.cat((image, image * mask)))

    def halves(maps: dict[str, Tensor], layers: tuple[str, ...], half: int) -> list[Tensor]:
        return [maps[layer].chunk(2)[half] for layer in layers]

    return (
        perceptual(halves(features, PERCEPTUAL_LAYERS, 0), halves(targets, PERCEPTUAL_LAYERS, 0)),
        style(halves(features, STYLE_LAYERS, 1), halves(targets, STYLE_LAYERS, 1)),
    )


def of_output_and_completed(
    features_of: Callable[[Tensor], dict[str, Tensor]], output: Tensor, completed: Tensor, image: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L_perceptual of output and composite together, L_style_out and L_style_comp.

    Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, Sec. 3.3. One pass of the
    feature network computes the features of both.

    features_of: images (N, 3, H, W) -> {layer: (N, C, h, w)}.
    output: of the generator, (N, 3, H, W).
    completed: composites, (N, 3, H, W).
    image: the true images, (N, 3, H, W).
    """
    features = features_of(torch.cat([output, completed]))
    with torch.no_grad():
        targets = list(features_of(image).values())
    of_output, of_completed = zip(*(maps.chunk(2) for maps in features.values()), strict=True)
    both = perceptual(of_output, targets) + perceptual(of_completed, targets)
    return both, style(of_output, targets), style(of_completed, targets)
