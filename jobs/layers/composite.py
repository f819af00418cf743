"""Fill the hole of an image."""

from __future__ import annotations

from torch import Tensor


def composite(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Take the output in the hole and the image elsewhere. Known pixels are equal to the image's, bit for bit.

    output, image: (N, 3, H, W).
    mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W).
    """
    return mask * output + (1 - mask) * image
