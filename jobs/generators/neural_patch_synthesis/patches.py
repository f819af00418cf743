"""Cut, match and blend 3x3 patches of feature maps, one image at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Places = tuple[Tensor, Tensor]
"""Rows and columns of patches' top left cells, int64 (P,) each."""

SIZE = 3  # authors' code, for queries and sources
STRIDE = 2  # authors' code, for both


def grid(height: int, width: int, device: torch.device | str = "cpu") -> Places:
    """Return every second place of a height x width map, and the last of each side, row by row.

    Raises ValueError for a map that is smaller than a patch.
    """
    if min(height, width) < SIZE:
        raise ValueError(f"a map must have at least {SIZE} x {SIZE} cells, got {height} x {width}")
    rows, columns = (torch.tensor(sorted({*range(0, n - SIZE, STRIDE), n - SIZE})) for n in (height, width))
    places = torch.cartesian_prod(rows, columns).to(device)
    return places[:, 0], places[:, 1]


def touching(cells: Tensor, places: Places) -> Tensor:
    """Find the patches with a cell that is not 0.

    cells: (1, 1, h, w).
    places: of P patches.
    Returns bool (P,).
    """
    windows = F.max_pool2d(cells, SIZE, stride=1)[0, 0]  # at the top left cell
    return windows[places] > 0


def select(places: Places, chosen: Tensor) -> Places:
    """Return the places where `chosen`, bool (P,), is True."""
    return places[0][chosen], places[1][chosen]


def cut(features: Tensor, places: Places) -> Tensor:
    """Cut the patches at P places: (1, C, h, w) -> (P, C * 9), channel by channel."""
    windows = features[0].unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # (C, h - 2, w - 2, 3, 3), a view
    return windows[:, places[0], places[1]].transpose(0, 1).flatten(1)


def match(queries: Tensor, sources: Tensor, chunk: int) -> Tensor:
    """Find the source with the highest cosine for every query, the first of equals.

    queries: (Q, D).
    sources: (S, D), S at least 1.
    chunk: number of sources compared at a time. It limits memory to Q * chunk values and does not change the result.
    Returns indices of sources, int64 (Q,).
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
    """Put patches at their places and average them where they overlap.

    patches: (P, C * 9), as from `cut`.
    places: of the P patches.
    size: h and w of the map.
    Returns V (1, C, h, w), and covered (1, 1, h, w): 1 where a patch is, else 0. V is 0 where no patch is.
    """
    height, width = size
    columns = patches.new_zeros(patches.shape[1], (height - SIZE + 1) * (width - SIZE + 1))
    columns[:, places[0] * (width - SIZE + 1) + places[1]] = patches.T
    laid = columns.new_zeros(SIZE**2, columns.shape[1])
    laid[:, places[0] * (width - SIZE + 1) + places[1]] = 1
    count = F.fold(laid[None], size, SIZE)  # (1, 1, h, w)
    return F.fold(columns[None], size, SIZE) / count.clamp_min(1), count.clamp_max(1)
