"""LBP's special parts as plain loops, written from the paper's figures: slow, and the judge of the fast ones."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import torch
from torch import Tensor

from jobs.generators.lbp.attention import SpatialAttention
from jobs.generators.lbp.codes import local_binary_pattern

# (rows down, columns to the right) of each neighbour, and its bit's weight.
BITS = {(-1, -1): 64, (-1, 0): 128, (-1, 1): 1, (0, -1): 32, (0, 1): 2, (1, -1): 16, (1, 0): 8, (1, 1): 4}


def pattern(grey: list[list[int]], border: str) -> list[list[int]]:
    """The local binary patterns of one grey image, pixel by pixel; with "code" row and column -1 are the last."""
    height, width = len(grey), len(grey[0])
    codes = [[0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            for (down, right), weight in BITS.items():
                i, j = row + down, column + right
                if i == height or j == width or (border == "zero" and min(i, j) < 0):
                    continue
                if grey[i][j] >= grey[row][column]:  # a list's index -1 is its last item
                    codes[row][column] += weight
    return codes


def spatial_attention(
    generated: Tensor, known: Tensor, hole: Tensor, *, weights: str = "paper", self_match: bool = False
) -> Tensor:
    """[F, E, R] of one sample, cell by cell: F and E (C, h, w), hole (h, w). The similarities are constants."""
    height, width = hole.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    holes = [place for place in places if hole[place]]
    others = [place for place in places if not hole[place]]

    def best(values: list[tuple[float, tuple[int, int]]]) -> list[tuple[float, tuple[int, int]] | None]:
        return [*sorted(values, key=lambda item: -item[0]), None, None][:2]

    def features(source: Tensor, place: tuple[int, int]) -> Tensor:
        return source[:, place[0], place[1]]

    matches = {}
    for cell in holes:
        query = features(generated.detach(), cell)
        outer = [(_cosine(query, features(known.detach(), place)), place) for place in others]
        inner = [
            (_cosine(query, features(generated.detach(), place)), place)
            for place in holes
            if self_match or place != cell
        ]
        matches[cell] = best(outer) + best(inner)

    borrowed = {}
    for cell in holes:
        shares = []
        for rank, match in enumerate(matches[cell]):
            if match is None:
                shares.append(0.0)
            elif weights == "paper":
                shares.append(exp(match[0]))
            else:
                shares.append(exp(sum(matches[other][rank][0] for other in holes) / len(holes)))
        borrowed[cell] = torch.zeros_like(generated[:, 0, 0])
        for rank, match in enumerate(matches[cell]):
            if match is not None:
                source = known if rank < 2 else generated
                borrowed[cell] = borrowed[cell] + shares[rank] / sum(shares) * features(source, match[1])
    zero = torch.zeros_like(generated[:, 0, 0])
    rows = [torch.stack([borrowed.get((i, j), zero) for j in range(width)], dim=1) for i in range(height)]
    return torch.cat((generated, known, torch.stack(rows, dim=1)))


def _cosine(one: Tensor, other: Tensor) -> float:
    lengths = float(one.norm()) * float(other.norm())
    return float(one @ other) / lengths if lengths else 0.0


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): on the paper's 256 pixels, two samples with a hole of a quarter in the middle."""
    random = torch.Generator().manual_seed(0)
    generated, known = torch.rand(2, 2, 256, 32, 32, generator=random)
    mask = torch.zeros(2, 1, 256, 256)
    mask[:, :, 64:192, 64:192] = 1
    hole = mask[:, 0, ::8, ::8]
    layer = SpatialAttention()
    grey = torch.randint(256, (2, 1, 256, 256), generator=random).to(torch.int16)
    return {
        "SpatialAttention": (
            lambda: layer(generated, known, mask),
            lambda: torch.stack([spatial_attention(f, e, h) for f, e, h in zip(generated, known, hole, strict=True)]),
        ),
        "local_binary_pattern": (
            lambda: local_binary_pattern(grey, "zero"),
            lambda: [pattern(image.tolist(), "zero") for image in grey[:, 0]],
        ),
    }
