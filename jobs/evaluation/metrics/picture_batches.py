"""Feed pictures to a feature network in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from jobs.evaluation.metrics.pixels import check_pictures

Pictures = Sequence[np.ndarray] | np.ndarray
"""N pictures of one size, each uint8 (H, W, 3)."""


def device_batches(lists: Sequence[Pictures], network: nn.Module, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield lists of pictures side by side on the network's device, uint8 (n, 3, H, W) each.

    lists: one or more, N pictures each.
    network: decides the device; a network without parameters is on the CPU.
    batch_size: n; the last batch may be smaller.
    Raises ValueError for lists of different length.
    """
    counts = [len(pictures) for pictures in lists]
    if len(set(counts)) > 1:
        raise ValueError(f"truth and composites must be one list, got {' and '.join(map(str, counts))} pictures")
    device = next((parameter.device for parameter in network.parameters()), "cpu")
    for start in range(0, counts[0], batch_size):
        batch = [np.stack(list(pictures[start : start + batch_size])) for pictures in lists]
        check_pictures(*batch)
        yield tuple(_channels_first(pictures).to(device) for pictures in batch)


def _channels_first(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1)))
