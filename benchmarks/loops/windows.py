"""Windows around holes, pixel by pixel and sample by sample: what the fast functions must equal, and their price."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.layers.windows import crop_windows, window_around_hole


def around_hole(mask: Tensor, size: int) -> list[list[int]]:
    """First row and column of each sample's window, as `window_around_hole` defines them."""
    height, width = mask.shape[-2:]
    starts = []
    for sample in mask[:, 0].tolist():
        holes = [(y, x) for y in range(height) for x in range(width) if sample[y][x] > 0]
        boxes = [(min(axis), max(axis)) for axis in zip(*holes, strict=True)] or [(0, height - 1), (0, width - 1)]
        start = []
        for (first, last), length in zip(boxes, (height, width), strict=True):
            wanted = (first + last + 1 - size) // 2
            start.append(min(max(wanted, 0), length - size))
        starts.append(start)
    return starts


def cut(tensor: Tensor, starts: list[list[int]], size: int) -> Tensor:
    """The windows: (N, C, H, W) -> (N, C, size, size)."""
    cropped = tensor.new_zeros(*tensor.shape[:2], size, size)
    for n, (top, left) in enumerate(starts):
        for y in range(size):
            for x in range(size):
                cropped[n, :, y, x] = tensor[n, :, top + y, left + x]
    return cropped


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): windows of 128 x 128 pixels around the holes of two images of 256 x 256."""
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 256, 256)
    mask[0, :, 20:120, 140:250] = 1
    mask[1, :, 90:200, 60:170] = 1

    def fast() -> Tensor:
        return crop_windows(image, window_around_hole(mask, 128), 128)

    def loop() -> Tensor:
        return cut(image, around_hole(mask, 128), 128)

    return {"windows around holes, 128 of 256 pixels": (fast, loop)}
