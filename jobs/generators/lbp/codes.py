"""Local binary patterns of a batch of images: a code per pixel that says which neighbours are at least as bright."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype

Border = Literal["zero", "code"]

# (row, column) of a neighbour in an image padded by 1, relative to its centre's place in the image, and its weight.
NEIGHBOURS = (
    (0, 0, 64), (0, 1, 128), (0, 2, 1),
    (1, 0, 32),              (1, 2, 2),
    (2, 0, 16), (2, 1, 8),   (2, 2, 4),
)  # fmt: skip


def pattern_map(image: Tensor, border: Border) -> Tensor:
    """The local binary patterns of images: (N, 3, H, W), RGB in [-1, 1] -> (N, 1, H, W), code / 127.5 - 1, in [-1, 1].

    Codes are those of the 8-bit grey image, see `local_binary_pattern`. Never flip or resize a map: a flipped image's
    codes are other numbers.
    """
    codes = local_binary_pattern(grey_levels(image), border)
    return codes.to(wide_dtype(image)) / 127.5 - 1


def grey_levels(image: Tensor) -> Tensor:
    """0.299 R + 0.587 G + 0.114 B, rounded, half up: (N, 3, H, W), RGB in [-1, 1] -> int16 (N, 1, H, W), 0 to 255.

    Exact for images that were 8-bit: all arithmetic is on integers, alike on every device.
    """
    levels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.int32)
    red, green, blue = levels.split(1, dim=1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.int16)


def local_binary_pattern(grey: Tensor, border: Border) -> Tensor:
    """Per pixel the sum of the weights of those of its 8 neighbours that are at least as bright.

    The authors' code; clockwise from the top left the weights are 64, 128, 1, 2, 4, 8, 16, 32. No interpolation.
    grey: int16 (N, 1, H, W), 0 to 255. Returns codes, the same shape and type, 0 to 255; a flat area has 255.
    border: values beyond the border: "zero", none sets a bit; "code", the same below and on the right, but
        the last row and column above and on the left, as Python's index -1 has it.
    """
    padded = _pad(grey, border, outside=-1)
    codes = torch.zeros_like(grey)
    for row, column, weight in NEIGHBOURS:
        codes.add_(_shifted(padded, row, column) >= grey, alpha=weight)
    return codes


def unknown_codes(mask: Tensor, border: Border) -> Tensor:
    """The pixels whose code depends on the hole: the hole and its neighbours. (N, 1, H, W), 1 = hole, both."""
    padded = _pad(mask, border, outside=0)
    unknown = mask
    for row, column, _ in NEIGHBOURS:
        unknown = torch.maximum(unknown, _shifted(padded, row, column))
    return unknown


def _pad(tensor: Tensor, border: Border, outside: int) -> Tensor:
    padded = F.pad(tensor, (1, 1, 1, 1), value=outside)
    if border == "code":
        padded[..., 0, 1:-1] = tensor[..., -1, :]
        padded[..., 1:-1, 0] = tensor[..., :, -1]
        padded[..., 0, 0] = tensor[..., -1, -1]
    return padded


def _shifted(padded: Tensor, row: int, column: int) -> Tensor:
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    return padded[..., row : row + height, column : column + width]
