"""Contextual attention sample by sample and cell by cell, and how long that takes beside the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.layers.attention import ContextualAttention


def contextual_attention(
    features: Tensor, mask: Tensor, *, fuse: bool, scale: float, pool: Literal["nearest", "max"]
) -> Tensor:
    """What `ContextualAttention` returns for features as foreground and background.

    features: (N, C, H, W), H and W even; mask: (N, 1, 4 * H, 4 * W), 1 = hole. Returns (N, C, H, W).
    """
    return torch.stack([_one(sample, hole[0], fuse, scale, pool) for sample, hole in zip(features, mask, strict=True)])


def _one(sample: Tensor, hole: Tensor, fuse: bool, scale: float, pool: str) -> Tensor:
    channels, height, width = sample.shape
    h, w = height // 2, width // 2
    cells = [(i, j) for i in range(h) for j in range(w)]
    small = F.pad(sample[:, ::2, ::2], (1, 1, 1, 1))
    large = F.pad(sample, (1, 1, 1, 1))

    queries = [small[:, i : i + 3, j : j + 3].reshape(-1) for i, j in cells]
    keys = torch.stack([key / max(key.square().sum().sqrt(), key.new_tensor(1e-4)) for key in queries])
    patches = torch.stack([large[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4].reshape(-1) for i, j in cells])
    valid = sample.new_tensor([_is_valid(cell, hole, h, w, pool) for cell in cells])

    rows = [keys @ query for query in queries]
    if fuse:
        rows = _add_neighbours(rows, [i * w + j for i in range(h) for j in range(w)])
        rows = _add_neighbours(rows, [i * w + j for j in range(w) for i in range(h)])

    canvas = torch.zeros_like(large)
    for (i, j), row in zip(cells, rows, strict=True):
        logits = scale * row * valid
        exponentials = torch.exp(logits - logits.max())  # the maximum falls out of the quotient
        pasted = (exponentials / exponentials.sum() * valid) @ patches
        canvas[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += pasted.view(channels, 4, 4)
    return canvas[:, 1:-1, 1:-1] / 4


def _is_valid(cell: tuple[int, int], hole: Tensor, h: int, w: int, pool: str) -> float:
    """1 if no cell of the 3x3 around holds a hole."""
    for i in range(max(cell[0] - 1, 0), min(cell[0] + 2, h)):
        for j in range(max(cell[1] - 1, 0), min(cell[1] + 2, w)):
            block = hole[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            if (block.max() if pool == "max" else block[0, 0]) > 0:
                return 0.0
    return 1.0


def _add_neighbours(rows: Sequence[Tensor], order: Sequence[int]) -> list[Tensor]:
    """Add S[p-1, l-1] and S[p+1, l+1], where -1 and +1 go along `order`, a list of cell numbers."""
    place = {cell: k for k, cell in enumerate(order)}
    ends = [None, *order, None]
    fused = []
    for p, row in enumerate(rows):
        total = row
        for step in (-1, 1):
            neighbour = ends[1 + place[p] + step]
            if neighbour is not None:
                moved = [ends[1 + place[cell] + step] for cell in range(len(order))]
                padded = torch.cat((rows[neighbour], row.new_zeros(1)))  # its last entry is what lies beyond the end
                total = total + padded[[len(order) if cell is None else cell for cell in moved]]
        fused.append(total)
    return fused


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): DeepFill's attention at the paper's width, on two images of 256x256."""
    features = torch.randn(2, 128, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 256, 256)
    mask[0, :, 64:192, 64:192] = 1
    mask[1, :, 16:128, 100:220] = 1
    layer = ContextualAttention()

    def fast() -> Tensor:
        with torch.no_grad():
            return layer(features, features, mask)

    def loop() -> Tensor:
        with torch.no_grad():
            return contextual_attention(features, mask, fuse=True, scale=10.0, pool="nearest")

    return {"ContextualAttention, 128 channels at 64x64": (fast, loop)}
