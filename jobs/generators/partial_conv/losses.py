"""PartialConv's own losses (Liu et al. 2018, Sec. 3.3). Every L1 is a mean over all C * H * W elements."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from jobs.layers.vgg import imagenet_normalised

PixelScale = Literal["imagenet", "unit", "signed"]

VGG_LAYERS = ("pool1", "pool2", "pool3")


def scaled(image: Tensor, scale: PixelScale) -> Tensor:
    """Convert an image to the range in which the pixel losses are computed.

    image: (N, 3, H, W) in [-1, 1].
    scale: "imagenet", normalised with ImageNet's mean and deviation; "unit", [0, 1]; "signed", unchanged.
    """
    if scale == "signed":
        return image
    unit = (image + 1) / 2
    return imagenet_normalised(unit) if scale == "imagenet" else unit


def pixel_losses(output: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute L_valid and L_hole, the absolute differences of valid and of hidden pixels.

    Both are divided by the number of all elements, so they add up to the mean absolute difference.
    output, image: (N, 3, H, W), of one range.
    mask: (N, 1, H, W), 1 = hole.
    """
    difference = (output - image).abs()
    hole = (mask * difference).mean()
    return ((1 - mask) * difference).mean(), hole


def total_variation(completed: Tensor, mask: Tensor) -> Tensor:
    """Compute L_tv: absolute differences of neighbours in the dilated hole, divided by the number of all elements.

    completed: composites, (N, 3, H, W).
    mask: (N, 1, H, W), 1 = hole.
    """
    # The paper's R is the hole dilated by a pixel. A pair counts if both of its pixels are in R.
    region = F.max_pool2d(mask, kernel_size=3, stride=1, padding=1)
    across = (completed.diff(dim=3).abs() * (region[..., 1:] * region[..., :-1])).sum()
    down = (completed.diff(dim=2).abs() * (region[..., 1:, :] * region[..., :-1, :])).sum()
    return (across + down) / completed.numel()
