"""The matching and the MRF term of Neural Patch Synthesis as plain loops over patches, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from jobs.generators.neural_patch_synthesis import patches

Place = tuple[int, int]


def places(height: int, width: int) -> list[Place]:
    """Every second place of a 3x3 patch, and the last of each side."""

    def starts(length: int) -> list[int]:
        found = list(range(0, length - 2, 2))
        return found if found[-1] == length - 3 else [*found, length - 3]

    return [(i, j) for i in starts(height) for j in starts(width)]


def patch(features: Tensor, place: Place) -> Tensor:
    """(C, h, w) -> (C, 3, 3)."""
    return features[:, place[0] : place[0] + 3, place[1] : place[1] + 3]


def touches(cells: Tensor, place: Place) -> bool:
    """Whether a patch has a cell of (h, w) that is not 0."""
    return any(cells[place[0] + i, place[1] + j] != 0 for i in range(3) for j in range(3))


def best_source(query: Tensor, sources: Iterable[Tensor]) -> int:
    """The number of the source with the highest cosine."""
    best, number = -float("inf"), 0
    for n, source in enumerate(sources):
        response = ((query * source).sum() / (source.square().sum().sqrt() * query.square().sum().sqrt())).item()
        if response > best:
            best, number = response, n
    return number


def blend(matched: list[Tensor], where: list[Place], like: Tensor) -> Tensor:
    """The average of the patches that cover a cell; 0 where there is none."""
    total, count = torch.zeros_like(like), torch.zeros_like(like)
    for source, (i, j) in zip(matched, where, strict=True):
        total[:, i : i + 3, j : j + 3] += source
        count[:, i : i + 3, j : j + 3] += 1
    return total / count.clamp_min(1)


def mrf_gradient(features: Tensor, matched: list[Tensor], where: list[Place]) -> Tensor:
    """The gradient as the authors' code writes it: (source - query) of every patch, averaged where they cover, negated.

    features: (C, h, w); matched: (C, 3, 3) each, at `where`.
    """
    total, count = torch.zeros_like(features), torch.zeros_like(features)
    for source, (i, j) in zip(matched, where, strict=True):
        total[:, i : i + 3, j : j + 3] += source - patch(features, (i, j))
        count[:, i : i + 3, j : j + 3] += 1
    return -total / count.clamp_min(1)


def synthesise(features: Tensor, source: Tensor, hole: Tensor) -> Tensor:
    """V of one map (C, h, w): patches that touch the hole (h, w) replaced by those of `source` that do not."""
    where = places(*hole.shape)
    sources = [patch(source, place) for place in where if not touches(hole, place)]
    queries = [place for place in where if touches(hole, place)]
    return blend([sources[best_source(patch(features, place), sources)] for place in queries], queries, features)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """relu4_1 of two images of 256 x 256 pixels with the centre hole: matches of the hole, laid down and averaged."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 512, 32, 32, generator=generator)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 8:24, 8:24] = 1

    def fast() -> Tensor:
        where = patches.grid(32, 32)
        queries = patches.touching(hole, where)
        known, asked = patches.select(where, ~queries), patches.select(where, queries)
        found = []
        for each in features.split(1):
            sources = patches.cut(each, known)
            index = patches.match(patches.cut(each, asked), sources, 4096)
            found.append(patches.blend(sources[index], asked, (32, 32))[0])
        return torch.cat(found)

    def loop() -> Tensor:
        return torch.stack([synthesise(each, each, hole[0, 0]) for each in features])

    return {"patch matching": (fast, loop)}
