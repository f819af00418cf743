"""Cut a window of one size out of each sample of a batch, for local discriminators."""

from __future__ import annotations

import torch
from torch import Tensor

from files.errors import UserError


def window_around_hole(mask: Tensor, size: int) -> Tensor:
    """Centre a window on the bounding box of each sample's hole, and shift it into the image.

    mask: (N, 1, H, W), 1 = hole. A sample without a hole gets the window in the image's centre.
    size: side of the window, in pixels.
    Returns the windows' first rows and columns, int64 (N, 2). A box no larger than the window is wholly inside it.
    Raises UserError if the window is larger than the image.
    """
    height, width = mask.shape[-2:]
    _check(size, height, width)
    hole = mask[:, 0] > 0
    return torch.stack((_start(hole.any(dim=2), size), _start(hole.any(dim=1), size)), dim=1)


def crop_windows(tensor: Tensor, starts: Tensor, size: int) -> Tensor:
    """Cut one window out of each sample: (N, C, H, W) -> (N, C, size, size). Gradients flow back.

    starts: first rows and columns, int64 (N, 2). Each window is inside its image.
    size: side of the window, in pixels.
    Raises UserError if the window is larger than the image.
    """
    num_samples, channels, height, width = tensor.shape
    _check(size, height, width)
    steps = torch.arange(size, device=tensor.device)
    rows = (starts[:, :1] + steps).view(num_samples, 1, size, 1).expand(-1, channels, -1, width)
    columns = (starts[:, 1:] + steps).view(num_samples, 1, 1, size).expand(-1, channels, size, -1)
    return tensor.gather(2, rows).gather(3, columns)


def border_discount(size: int, gamma: float, like: Tensor) -> Tensor:
    """Weigh the pixels of a square window by gamma to the power of the distance to its border.

    The weight is max(gamma^min(i, size - i), gamma^min(j, size - j)), with rows i and columns j counted from 0, as in
    the authors' codes of DeepFill v1 and Shift-Net. It is 1 in the first row and column, and gamma elsewhere in the
    last row and column.

    size: side of the window, in pixels.
    gamma: in (0, 1].
    like: a tensor of the wanted type and device.
    Returns (size, size).
    """
    lines = torch.arange(size, dtype=like.dtype, device=like.device)
    powers = gamma ** torch.minimum(lines, size - lines)
    return torch.maximum(powers[:, None], powers[None, :])


def _start(occupied: Tensor, size: int) -> Tensor:
    """Return the first row or column of each sample's window, int64 (N,).

    occupied: (N, L), True where a row or column has hole pixels.
    size: side of the window, in pixels.
    """
    length = occupied.shape[1]
    lines = torch.arange(length, device=occupied.device)
    # Without a hole, first + last is length - 1, so that the window is centred in the image.
    first = torch.where(occupied, lines, length).amin(dim=1)
    last = torch.where(occupied, lines, -1).amax(dim=1)
    start = torch.div(first + last + 1 - size, 2, rounding_mode="floor")
    return start.clamp(0, length - size)


def _check(size: int, height: int, width: int) -> None:
    if not 1 <= size <= min(height, width):
        raise UserError(f"a window of {size} x {size} does not fit into an image of {height} x {width}")
