"""EdgeConnect's perceptual loss on whole images and style loss on their holes."""

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
