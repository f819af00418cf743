"""Feed pairs of pictures to a feature network in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from jobs.evaluation.metrics.pixels import check_pictures

Pictures = Sequence[np.ndarray] | np.ndarray
"""N pictures of one size, each uint8 (H, W, 3)."""


def device_batches(
    real8: Pictures, fake8: Pictures, network: nn.Module, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield both lists side by side on the network's device, uint8 (n, 3, H, W) each.

    real8, fake8: true pictures and composites, N each.
    network: decides the device; a network without parameters is on the CPU.
    batch_size: n; the last batch may be smaller.
    Raises ValueError for lists of different length.
    """
    if len(real8) != len(fake8):
        raise ValueError(f"truth and composites must be one list, got {len(real8)} and {len(fake8)} pictures")
    device = next((parameter.device for parameter in network.parameters()), "cpu")
    for start in range(0, len(real8), batch_size):
        real, fake = (np.stack(list(pictures[start : start + batch_size])) for pictures in (real8, fake8))
        check_pictures(real, fake)
        yield _channels_first(real).to(device), _channels_first(fake).to(device)


def _channels_first(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1)))
