"""The loss of GLCIC alone: the squared error in the hole."""

from __future__ import annotations

from torch import Tensor


def reconstruction(raw: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Average (M * (C(x, M) - x))^2 over all elements, on the scale of [0, 1]. Known pixels count as 0.

    Iizuka et al., SIGGRAPH 2017, the weighted MSE loss, which has a norm and no normaliser.

    raw: C(x, M), (N, 3, H, W) in [-1, 1].
    image: x, (N, 3, H, W) in [-1, 1].
    mask: M, (N, 1, H, W), 1 = hole.
    """
    return (mask * (raw - image)).square().mean() / 4  # ((2 a - 1) - (2 b - 1))^2 = 4 (a - b)^2
