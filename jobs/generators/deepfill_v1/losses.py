"""Losses of DeepFill v1 alone: weights of discounted l1, l1 of known pixels, and gradient penalty on the hole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.layers.windows import border_discount
from jobs.recipe.collectives import ratio
from jobs.recipe.precision import wide_dtype


def box_discount(size: int, gamma: float) -> Tensor:
    """Return the weights of l1 in a size x size box by `border_discount`, float64 (size, size).

    Yu et al., CVPR 2018, Sec. 3.2, as in the authors' code.
    """
    return border_discount(size, gamma, torch.empty((), dtype=torch.float64, device="cpu"))


def hole_discount(mask: Tensor, gamma: float) -> Tensor:
    """Weigh the pixels of a hole by gamma^(d - 1), where d is the distance to the nearest known pixel.

    Yu et al., CVPR 2018, Sec. 3.2, for holes of any shape. The distance counts steps between neighbours in rows and
    columns. It is 1 for a hole pixel next to a known one, so a box gets the weight 1 on its border, as in
    `box_discount`. Pixels beyond the image are not known. A sample without known pixels gets weight 1 everywhere.

    mask: (N, 1, H, W), 1 = hole.
    gamma: in (0, 1].
    Returns the same shape, 0 where the mask is 0.
    """
    height, width = mask.shape[-2:]
    far = float(height + width)  # more than any distance
    distance = _along(_along(mask * far, dim=3), dim=2)
    distance = torch.where(distance >= far, 1.0, distance)
    return mask * gamma ** (distance - 1)


def _along(distance: Tensor, dim: int) -> Tensor:
    """Minimise distance[k] + |i - k| over places k along dim, which is one pass of a city-block transform."""
    length = distance.shape[dim]
    steps = torch.arange(length, device=distance.device, dtype=distance.dtype)
    places = steps.view(-1, *[1] * (distance.ndim - 1 - dim))
    forwards = (distance - places).cummin(dim).values + places
    backwards = (distance + places).flip(dim).cummin(dim).values.flip(dim) - places
    return torch.minimum(forwards, backwards)


def l1_of_known(prediction: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Average |difference| over the known pixels of the global batch (L_ae). It is 0 if there is none.

    prediction, image: (N, 3, H, W) in [-1, 1].
    mask: (N, 1, H, W), 1 = hole.
    """
    known = 1 - mask
    return ratio(((prediction - image).abs() * known).mean(), known.mean(), at_least=1 / mask[0].numel())


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, mask: Tensor, share: Tensor) -> Tensor:
    """Average (|gradient of the critic| - 1)^2 over samples between real and fake. Only hole pixels count.

    Yu et al., CVPR 2018, Eq. 6; Gulrajani et al., "Improved Training of Wasserstein GANs", 2017. It is computed in
    float32 at least.

    real: (N, 3, H, W) in [-1, 1].
    fake: (N, 3, H, W) in [-1, 1], detached.
    mask: (N, 1, H, W), 1 = hole.
    share: weight of the fake in every sample, (N,) in [0, 1).
    """
    dtype = wide_dtype(real)
    with torch.autocast(real.device.type, enabled=False):
        real, fake, mask = real.to(dtype), fake.to(dtype), mask.to(dtype)
        between = (real + share.to(dtype).view(-1, 1, 1, 1) * (fake - real)).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        squares = (gradient * mask).square().sum(dim=(1, 2, 3))
        # Eq. 6. Without the 1e-12 an empty mask would give NaN.
        return ((squares + 1e-12).sqrt() - 1).square().mean()
