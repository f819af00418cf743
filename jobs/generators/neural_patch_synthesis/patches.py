"""3x3 patches of feature maps: cut, match and blend. One image at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Places = tuple[Tensor, Tensor]
"""Rows and columns of patches' top left cells, int64 (P,) each."""

SIZE = 3  # authors' code, for queries and sources
STRIDE = 2  # authors' code, for both


def grid(height: int, width: int, device: torch.device | str = "cpu") -> Places:
    """Every second place of a height x width map, and the last of each side, row by row.

    Raises ValueError for a map that is smaller than a patch.
    """
    if min(height, width) < SIZE:
        raise ValueError(f"a map must have at least {SIZE} x {SIZE} cells, got {height} x {width}")
    rows, columns = (torch.tensor(sorted({*range(0, n - SIZE, STRIDE), n - SIZE})) for n in (height, width))
    places = torch.cartesian_prod(rows, columns).to(device)
    return places[:, 0], places[:, 1]


def touching(cells: Tensor, places: Places) -> Tensor:
    """Which patches have a cell that is not 0: cells (1, 1, h, w), (P,) places -> bool (P,)."""
    windows = F.max_pool2d(cells, SIZE, stride=1)[0, 0]  # by top left cell
    return windows[places] > 0


def select(places: Places, chosen: Tensor) -> Places:
    """The places for which `chosen`, bool (P,), holds."""
    return places[0][chosen], places[1][chosen]


def cut(features: Tensor, places: Places) -> Tensor:
    """The patches at P places: (1, C, h, w) -> (P, C * 9), channel by channel."""
    windows = features[0].unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # (C, h - 2, w - 2, 3, 3), a view
    return windows[:, places[0], places[1]].transpose(0, 1).flatten(1)


def match(queries: Tensor, sources: Tensor, chunk: int) -> Tensor:
    """For each query the source with the highest cosine, the first of equals: (Q, D), (S, D) -> int64 (Q,).

    chunk: how many sources are compared at a time; bounds memory to Q * chunk, not the result. S is at least 1.
    """
    queries = F.normalize(queries, dim=1)
    best = queries.new_full((len(queries),), -torch.inf)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for first in range(0, len(sources), chunk):
        part = F.normalize(sources[first : first + chunk], dim=1)
        cosine, place = (queries @ part.T).max(dim=1)
        index = torch.where(cosine > best, place + first, index)
        best = torch.maximum(cosine, best)
    return index


def blend(patches: Tensor, places: Places, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Lay patches down and average where they overlap: (P, C * 9), P places -> V (1, C, h, w), covered (1, 1, h, w).

    Both are 0 in cells that no patch covers; covered is 1 elsewhere.
    """
    height, width = size
    columns = patches.new_zeros(patches.shape[1], (height - SIZE + 1) * (width - SIZE + 1))
    columns[:, places[0] * (width - SIZE + 1) + places[1]] = patches.T
    laid = columns.new_zeros(SIZE**2, columns.shape[1])
    laid[:, places[0] * (width - SIZE + 1) + places[1]] = 1
    count = F.fold(laid[None], size, SIZE)  # (1, 1, h, w)
    return F.fold(columns[None], size, SIZE) / count.clamp_min(1), count.clamp_max(1)
