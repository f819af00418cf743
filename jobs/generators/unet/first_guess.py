"""Fill a hole by diffusion, as a first guess for a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SWEEPS = 8  # of Laplace's equation, at each size


@torch.no_grad()
def diffuse(image: Tensor, mask: Tensor) -> Tensor:
    """Continue the known pixels smoothly into the hole, from coarse to fine.

    The pyramid is that of Gortler, Grzeszczuk, Szeliski and Cohen, "The Lumigraph", SIGGRAPH 1996, Sec. 3.5 (pull and
    push). At each size a few Jacobi sweeps of Laplace's equation smooth the hole.
    image: (N, C, H, W). Pixels under the hole are not read.
    mask: (N, 1, H, W), 1 = hole.
    Returns the image with its hole filled, between the least and the greatest known value of each channel. Without a
    known pixel it is 0.
    """
    return _fill(torch.where(mask > 0, 0, image), 1 - mask)


def _fill(values: Tensor, weight: Tensor) -> Tensor:
    """Keep values of weight 1, replace those of weight 0, and mix between.

    weight: (N, 1, H, W) in [0, 1].
    """
    height, width = values.shape[-2:]
    if height % 2 or width % 2:
        guess = _quotient((values * weight).sum((2, 3), keepdim=True), weight.sum((2, 3), keepdim=True))
    else:
        share = F.avg_pool2d(weight, 2)
        coarse = _quotient(F.avg_pool2d(values * weight, 2), share)
        filled = _fill(coarse, (4 * share).clamp(max=1))  # one known pixel of four makes a known cell
        guess = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
    filled = weight * values + (1 - weight) * guess
    for _ in range(_SWEEPS):
        filled = filled + (1 - weight) * (_mean_of_neighbours(filled) - filled)
    return filled


def _quotient(total: Tensor, weight: Tensor) -> Tensor:
    return total / torch.where(weight > 0, weight, 1)


def _mean_of_neighbours(values: Tensor) -> Tensor:
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, :], padded[..., 1:-1]
    return (across[..., 2:] + across[..., :-2] + down[..., 2:, :] + down[..., :-2, :]) / 4
