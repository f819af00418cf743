"""The image with its hole filled."""

from __future__ import annotations

from torch import Tensor


def composite(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The output in the hole, the image elsewhere, the latter bit for bit.

    output, image: (N, 3, H, W); mask: (N, 1, H, W), 1 = hole.
    """
    return mask * output + (1 - mask) * image
