"""Local binary patterns: a code per pixel that says which of its neighbours are at least as bright."""

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
    """Compute the local binary patterns of the 8-bit grey images, see `local_binary_pattern`.

    image: (N, 3, H, W), RGB in [-1, 1].
    border: see `local_binary_pattern`.
    Returns (N, 1, H, W), code / 127.5 - 1, in [-1, 1]. Never flip or resize it: a flipped image has other codes.
    """
    codes = local_binary_pattern(grey_levels(image), border)
    return codes.to(wide_dtype(image)) / 127.5 - 1


def grey_levels(image: Tensor) -> Tensor:
    """Compute 0.299 R + 0.587 G + 0.114 B, rounded half up.

    image: (N, 3, H, W), RGB in [-1, 1].
    Returns int16 (N, 1, H, W), 0 to 255. It is exact for images that were 8-bit, and equal on every device, since all
    arithmetic is on integers.
    """
    levels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.int32)
    red, green, blue = levels.split(1, dim=1)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.int16)


def local_binary_pattern(grey: Tensor, border: Border) -> Tensor:
    """Compute per pixel the sum of the weights of those of its 8 neighbours that are at least as bright.

    As in the authors' code, the weights are 64, 128, 1, 2, 4, 8, 16, 32, clockwise from the top left, and nothing is
    interpolated.
    grey: int16 (N, 1, H, W), 0 to 255.
    border: neighbours beyond the border. "zero": they set no bit. "code": they set no bit below and on the right; above
        and on the left they are the last row and column, as Python's index -1 gives them.
    Returns codes, int16 (N, 1, H, W), 0 to 255; a flat area has 255.
    """
    padded = _pad(grey, border, outside=-1)
    codes = torch.zeros_like(grey)
    for row, column, weight in NEIGHBOURS:
        codes.add_(_shifted(padded, row, column) >= grey, alpha=weight)
    return codes


def unknown_codes(mask: Tensor, border: Border) -> Tensor:
    """Return the pixels whose code depends on the hole: the hole and its neighbours.

    mask: (N, 1, H, W), 1 = hole.
    border: see `local_binary_pattern`.
    Returns (N, 1, H, W), 1 = unknown code.
    """
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
