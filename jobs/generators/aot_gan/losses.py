"""Losses of AOT-GAN alone: soft masks as targets of the discriminator (SM-GAN)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.collectives import ratio
from jobs.recipe.precision import widen

PERCEPTUAL_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
STYLE_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


def blur(mask: Tensor, kernel: int, sigma: float) -> Tensor:
    """Convolve a mask with a Gaussian. It is padded with zeros.

    mask: (N, 1, H, W), 1 = hole.
    kernel: side of the kernel in pixels, odd.
    sigma: deviation in pixels.
    Returns (N, 1, H, W) in [0, 1].
    """
    places = torch.arange(kernel, device=mask.device, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-places.square() / (2 * sigma**2))
    weights = (weights / weights.sum()).to(mask.dtype)
    with torch.autocast(mask.device.type, enabled=False):
        rows = F.conv2d(mask, weights.view(1, 1, 1, -1), padding=(0, kernel // 2))
        return F.conv2d(rows, weights.view(1, 1, -1, 1), padding=(kernel // 2, 0))


def resized(scores: Tensor, mask: Tensor) -> Tensor:
    """Resize a discriminator's scores to the size of the mask, bilinearly with aligned corners, in float32 at least."""
    return F.interpolate(widen(scores), mask.shape[-2:], mode="bilinear", align_corners=True)


def discriminator_loss(real: Tensor, fake: Tensor, soft_mask: Tensor, *, released: bool) -> Tensor:
    """Sum the mean squared errors of the scores of real and of filled images.

    Zeng et al., 2021, SM-GAN (recalled).

    real, fake: resized scores, (N, 1, H, W).
    soft_mask: blurred mask, (N, 1, H, W) in [0, 1].
    released: whether real images have target 0 and filled ones the soft mask, as in the authors' code, in place of 1
        and 1 - soft mask.
    """
    target = soft_mask if released else 1 - soft_mask
    return (real - (0 if released else 1)).square().mean() + (fake - target).square().mean()


def generator_loss(fake: Tensor, mask: Tensor, *, released: bool) -> Tensor:
    """Average (score - 1)^2 over the hole pixels of the global batch.

    Zeng et al., 2021, SM-GAN (recalled).

    fake: resized scores, (N, 1, H, W).
    mask: (N, 1, H, W), 1 = hole.
    released: whether to average over all pixels, as in the authors' code.
    """
    error = (fake - 1).square()
    return error.mean() if released else ratio((error * mask).sum(), mask.sum(), at_least=1)
