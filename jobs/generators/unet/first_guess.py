"""Fill a hole smoothly, as a first guess for a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_FLAT_SWEEPS = 2  # of Laplace's equation, at each size
_SMOOTH_SWEEPS = 24  # of the biharmonic equation, which continues slopes, too
_STEP = 0.0225  # of a smooth sweep; the operator's largest eigenvalue is 64, so that the sweeps converge below 0.056
_MOMENTUM = 0.8


@torch.no_grad()
def diffuse(image: Tensor, mask: Tensor) -> Tensor:
    """Continue the known pixels smoothly into the hole, from coarse to fine.

    The pyramid is that of Gortler, Grzeszczuk, Szeliski and Cohen, "The Lumigraph", SIGGRAPH 1996, Sec. 3.5 (pull and
    push). At each size a few sweeps of diffusion in the hole follow: Jacobi's for Laplace's equation, and gradient
    descent with momentum for the biharmonic one. More sweeps would come closer to their solutions, but not closer to
    photographs.
    image: (N, C, H, W) in [-1, 1]. Pixels under the hole are not read.
    mask: (N, 1, H, W), 1 = hole.
    Returns the image with its hole filled, in [-1, 1]. Without a known pixel the hole is 0.
    """
    filled = _fill(torch.where(mask > 0, 0, image), 1 - mask).clamp(-1, 1)
    return torch.where(mask > 0, filled, image)


@torch.no_grad()
def roughness(image: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute difference of known neighbours, (N, 1, 1, 1), and at least 1e-3.

    image: (N, C, H, W), finite. mask: (N, 1, H, W), 1 = hole.
    """
    known = 1 - mask
    across, down = known[..., 1:] * known[..., :-1], known[..., 1:, :] * known[..., :-1, :]
    total = (image.diff(dim=3).abs().mean(1, keepdim=True) * across).sum((1, 2, 3), keepdim=True)
    total = total + (image.diff(dim=2).abs().mean(1, keepdim=True) * down).sum((1, 2, 3), keepdim=True)
    pairs = across.sum((1, 2, 3), keepdim=True) + down.sum((1, 2, 3), keepdim=True)
    return _quotient(total, pairs).clamp_min(1e-3)


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
        guess = F.interpolate(filled, scale_factor=2, mode="bicubic", align_corners=False)
    return _diffused(weight * values + (1 - weight) * guess, 1 - weight)


def _diffused(values: Tensor, hole: Tensor) -> Tensor:
    """Sweep over the hole. hole: (N, 1, H, W) in [0, 1], how far each value may change."""
    for _ in range(_FLAT_SWEEPS):
        values = values + hole * _laplacian(values) / 4
    velocity = torch.zeros_like(values)
    for _ in range(_SMOOTH_SWEEPS):
        force = _laplacian(_laplacian(values)).mul_(hole)
        velocity.mul_(_MOMENTUM).sub_(force, alpha=_STEP)
        values = values + velocity
    return values


def _quotient(total: Tensor, weight: Tensor) -> Tensor:
    return total / torch.where(weight > 0, weight, 1)


def _laplacian(values: Tensor) -> Tensor:
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, :], padded[..., 1:-1]
    total = across[..., 2:] + across[..., :-2]
    for neighbour in (down[..., 2:, :], down[..., :-2, :]):
        total += neighbour  # in place: a new tensor for each sum takes four times as long
    return total.sub_(values, alpha=4)
