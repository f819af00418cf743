"""PartialConv's own losses. Liu et al. 2018, Sec. 3.3; every L1 is a mean over all C * H * W elements of the images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.layers.vgg import VGG16, imagenet_normalised
from jobs.recipe.losses import perceptual, style

PixelScale = Literal["imagenet", "unit", "signed"]

VGG_LAYERS = ("pool1", "pool2", "pool3")


def scaled(image: Tensor, scale: PixelScale) -> Tensor:
    """An image of [-1, 1] in the range that pixel losses are counted in, (N, 3, H, W).

    scale: "imagenet", [0, 1] with ImageNet's mean and deviation taken out; "unit", [0, 1]; "signed", unchanged.
    """
    if scale == "signed":
        return image
    unit = (image + 1) / 2
    return imagenet_normalised(unit) if scale == "imagenet" else unit


def pixel_losses(output: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """L_valid and L_hole: the absolute differences of valid and of hidden pixels, each over all pixels. They add up to
    the mean absolute difference.

    output, image: (N, 3, H, W), of one range; mask: (N, 1, H, W), 1 = hole.
    """
    difference = (output - image).abs()
    hole = (mask * difference).mean()
    return ((1 - mask) * difference).mean(), hole


def total_variation(completed: Tensor, mask: Tensor) -> Tensor:
    """L_tv: absolute differences of neighbours that both lie in the hole or beside it, over the number of all elements.

    completed: composites, (N, 3, H, W); mask: (N, 1, H, W), 1 = hole. The paper's R is the hole dilated by a pixel.
    """
    region = F.max_pool2d(mask, kernel_size=3, stride=1, padding=1)
    across = (completed.diff(dim=3).abs() * (region[..., 1:] * region[..., :-1])).sum()
    down = (completed.diff(dim=2).abs() * (region[..., 1:, :] * region[..., :-1, :])).sum()
    return (across + down) / completed.numel()


def feature_losses(vgg: VGG16, output: Tensor, completed: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L_perceptual, L_style_out and L_style_comp, from one pass of VGG-16 over outputs and composites together.

    output, completed, image: (N, 3, H, W) in [-1, 1]; the output may leave that range.
    """
    features = vgg(scaled(torch.cat([output, completed]), "imagenet"))
    with torch.no_grad():
        targets = list(vgg(scaled(image, "imagenet")).values())
    of_output, of_completed = zip(*(maps.chunk(2) for maps in features.values()), strict=True)
    both = perceptual(of_output, targets) + perceptual(of_completed, targets)
    return both, style(of_output, targets), style(of_completed, targets)
