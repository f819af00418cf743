"""LBP's own losses: squared differences of features, and the square around the hole that some losses compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.layers.vgg import VGG16, imagenet_normalised, to_unit
from jobs.recipe.losses import gram

VGG_LAYERS = ("pool1", "pool2", "pool3")


def squared_differences(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Compute the sum over maps of the mean squared difference, each map with weight 1.

    features, targets: the same number of maps, of equal shapes, any range.
    """
    return sum(F.mse_loss(feature, target) for feature, target in zip(features, targets, strict=True))


def perceptual_and_style(
    vgg: VGG16, vgg_input: Literal["imagenet", "raw"], predicted: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the squared differences of VGG-16's maps after its first three pools, and of their Gram matrices.

    vgg: with the layers `VGG_LAYERS`.
    vgg_input: its input: "imagenet", RGB normalised with ImageNet's mean and deviation; "raw", BGR in [-1, 1], as in
        the authors' code.
    predicted, image: (N, 3, H, W), RGB in [-1, 1].
    """

    def shown(picture: Tensor) -> Tensor:
        return picture.flip(1) if vgg_input == "raw" else imagenet_normalised(to_unit(picture))

    features = list(vgg(shown(predicted)).values())
    with torch.no_grad():
        targets = list(vgg(shown(image)).values())
    return squared_differences(features, targets), squared_differences(
        [gram(feature) for feature in features], [gram(target) for target in targets]
    )


def square_around_hole(tensor: Tensor, mask: Tensor, size: int) -> Tensor:
    """Cut a square around the middle of each sample's hole, moved to be inside the image.

    For odd sizes it may begin one pixel off the window of `jobs.layers.windows.window_around_hole`.
    tensor: (N, C, H, W).
    mask: (N, 1, H, W), 1 = hole. Without a hole the square is in the middle of the image.
    size: its side in pixels; a shorter side of the image is taken whole.
    Returns (N, C, min(size, H), min(size, W)).
    """
    rows = _span(mask.amax(dim=(1, 3)), size)  # (N, size)
    columns = _span(mask.amax(dim=(1, 2)), size)
    samples = torch.arange(len(tensor), device=tensor.device).view(-1, 1, 1)
    return tensor.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _span(hole: Tensor, size: int) -> Tensor:
    """Return the positions along one side, around the hole's middle: (N, L), 1 = hole -> int64 (N, min(size, L))."""
    length = hole.shape[1]
    size = min(size, length)
    places = torch.arange(length, device=hole.device)
    first = torch.where(hole > 0, places, length).amin(dim=1)
    last = torch.where(hole > 0, places, -1).amax(dim=1)
    start = ((first + last + 1) // 2 - size // 2).clamp(0, length - size)
    return start[:, None] + places[:size]
