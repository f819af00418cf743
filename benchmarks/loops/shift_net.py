"""Shift-Net's shift-connection layer, as plain loops over samples and cells: slow, and easy to check."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.shift_net.shift import Shift


@torch.no_grad()
def match(decoded: Tensor, encoded: Tensor, hole: Tensor) -> dict[tuple[int, int, int], tuple[int, int]]:
    """(sample, y, x) of every hole cell -> (y, x) of the known cell most like it; none in a sample without known cells.

    decoded, encoded: (N, C, h, w); hole: (N, 1, h, w), 1 = hole. The cosine is that of the paper, both norms in it.
    """
    found = {}
    for sample, flags in enumerate(hole[:, 0].tolist()):
        cells = [(y, x) for y, row in enumerate(flags) for x in range(len(row))]
        known = [(y, x) for y, x in cells if flags[y][x] == 0]
        lengths = {(y, x): float(encoded[sample, :, y, x].norm()) for y, x in known}
        for y, x in cells:
            if flags[y][x] == 0 or not known:
                continue
            query = decoded[sample, :, y, x]
            length = float(query.norm())
            best, best_cosine = known[0], -float("inf")
            for place in known:
                cosine = float(query @ encoded[sample, :, place[0], place[1]]) / (length * lengths[place] + 1e-8)
                if cosine > best_cosine:
                    best, best_cosine = place, cosine
            found[sample, y, x] = best
    return found


def shift(decoded: Tensor, encoded: Tensor, hole: Tensor) -> Tensor:
    """What `Shift` returns; arguments as there."""
    shifted = torch.zeros_like(encoded)
    for (sample, y, x), (from_y, from_x) in match(decoded, encoded, hole).items():
        shifted[sample, :, y, x] = encoded[sample, :, from_y, from_x]
    return shifted


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop) on the same maps of two 256x256 images, 256 of their 1024 cells holes in the centre."""
    generator = torch.Generator().manual_seed(0)
    decoded, encoded = torch.randn(2, 2, 256, 32, 32, generator=generator).relu()
    hole = torch.zeros(2, 1, 32, 32)
    hole[..., 8:24, 8:24] = 1
    layer = Shift()
    return {"shift": (lambda: layer(decoded, encoded, hole), lambda: shift(decoded, encoded, hole))}
