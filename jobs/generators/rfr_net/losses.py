"""Losses of RFR-Net alone: errors of known and of hidden pixels, and total variation of the hole."""

from __future__ import annotations

from torch import Tensor

VGG_LAYERS = ("pool1", "pool2", "pool3")


def pixel_losses(output: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the absolute errors of known and of hidden pixels, each divided by the number of all elements.

    Li et al., CVPR 2020, Sec. 3.4.

    output, image: (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    error = (output - image).abs()
    return (error * (1 - mask)).mean(), (error * mask).mean()


def total_variation(completed: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute differences of rows plus those of columns, of the composite with known pixels at 0.

    Li et al., CVPR 2020, Sec. 3.4, as in the authors' code: the hole's rim counts.

    completed: composite, (N, 3, H, W) in [0, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    hole = completed * mask
    return hole.diff(dim=2).abs().mean() + hole.diff(dim=3).abs().mean()
