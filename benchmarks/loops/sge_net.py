"""SGE-Net's judgement of its own segmentation, as plain loops over samples and cells: slow, and easy to check."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.sge_net.networks import unreliable_cells


def find_unreliable(probabilities: Tensor, hole: Tensor, share: float) -> Tensor:
    """`unreliable_cells`, sample by sample: sort the hole's confidences, take the threshold, compare cell by cell.

    probabilities: (N, K, h, w); hole: (N, 1, h, w), 1 = hole. Returns (N, 1, h, w), 0 or 1.
    """
    marked = torch.zeros_like(hole)
    for sample in range(len(hole)):
        planes = probabilities[sample].tolist()
        inside = hole[sample, 0].tolist()
        cells = [(y, x) for y, row in enumerate(inside) for x, value in enumerate(row) if value == 1]
        confidence = {(y, x): max(plane[y][x] for plane in planes) for y, x in cells}
        number = math.ceil(share * len(cells))
        if number == 0:
            continue
        threshold = sorted(confidence.values())[number - 1]
        for y, x in cells:
            if confidence[y, x] <= threshold:
                marked[sample, 0, y, x] = 1
    return marked


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop) on the same two 256x256 images with centred 128x128 holes, at the finest judged scale."""
    torch.manual_seed(0)
    probabilities = torch.randn(2, 8, 128, 128).softmax(dim=1)
    hole = torch.zeros(2, 1, 128, 128)
    hole[..., 32:96, 32:96] = 1
    arguments = (probabilities, hole, 0.25)
    return {"segmentation confidence": (lambda: unreliable_cells(*arguments), lambda: find_unreliable(*arguments))}
