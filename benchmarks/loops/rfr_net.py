"""Knowledge-consistent attention cell by cell (Li et al. 2020): what the fast layer must equal, and its price."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.rfr_net.attention import KnowledgeConsistentAttention


def attention(
    features: Tensor, filled: Tensor, previous: Tensor | None, ratio: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return attended features (N, C, H, W) and blended scores (N, H W, H W).

    features: (N, C, H, W).
    filled: (N, 1, H, W), 1 = known in the recurrence before.
    previous: scores of the recurrence before; None in the first.
    ratio: scalar.
    weight, bias: of the 1x1 convolution that joins attended and given features.
    """
    num_samples, channels, height, width = features.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    images, maps = [], []
    for sample in range(num_samples):
        raw = {cell: features[sample, :, cell[0], cell[1]] for cell in cells}
        keys = {cell: (value + 1e-7) / (value + 1e-7).norm() for cell, value in raw.items()}
        rows = []
        for query, (y, x) in enumerate(cells):
            near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (y + dy, x + dx) in raw]
            scores = torch.stack([sum(raw[cell] @ keys[key] for cell in near) for key in cells])
            row = (scores - scores.max()).exp()
            row = row / row.sum()
            if previous is not None:
                known, share = filled[sample, 0, y, x], ratio.abs() + 1e-7
                row = (known * previous[sample, query] + share * row) / (known + share)
            rows.append(row)
        maps.append(torch.stack(rows))
        columns = []
        for query, cell in enumerate(cells):
            mean = sum(maps[-1][query, number] * keys[key] for number, key in enumerate(cells))
            columns.append(weight[:, :, 0, 0] @ torch.cat((mean, raw[cell])) + bias)
        images.append(torch.stack(columns, dim=1).view(channels, height, width))
    return torch.stack(images), torch.stack(maps)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): a small map, since the loop visits every pair of cells."""
    generator = torch.Generator().manual_seed(0)
    layer = KnowledgeConsistentAttention(512)
    features = torch.randn(2, 512, 12, 12, generator=generator)
    filled = torch.ones(2, 1, 12, 12)
    previous = torch.full((2, 144, 144), 1 / 144)

    def fast() -> object:
        with torch.no_grad():
            return layer(features, filled, previous)

    def loop() -> object:
        with torch.no_grad():
            return attention(features, filled, previous, layer.ratio, layer.join.weight, layer.join.bias)

    return {"Knowledge-consistent attention, 512 channels, 12x12": (fast, loop)}
