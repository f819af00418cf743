"""What filling the holes of a row cost: time and memory, which differ from run to run.

Costs are never part of a file whose bytes must repeat.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one row.

    seconds: time in its fills, loading and scoring not counted.
    pairs: number of pairs of image and mask that were given to it, those over the time limit included.
    peak_device_bytes: most memory of the accelerator in use at once; 0 without an accelerator.
    """

    seconds: float = 0.0
    pairs: int = 0
    peak_device_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            seconds=self.seconds + other.seconds,
            pairs=self.pairs + other.pairs,
            peak_device_bytes=max(self.peak_device_bytes, other.peak_device_bytes),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cost with seconds per pair, as plain data."""
        return {**asdict(self), "seconds_per_image": self.seconds / self.pairs if self.pairs else None}


@contextmanager
def measure_cost(costs: dict[str, Cost], row: str, pairs: int) -> Iterator[None]:
    """Add what the block costs to the cost of a row.

    costs: row -> cost.
    pairs: number of pairs that the block fills.
    """
    import torch

    has_device = torch.cuda.is_available()
    if has_device:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    begin = time.perf_counter()
    yield
    if has_device:
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - begin, torch.cuda.max_memory_allocated() if has_device else 0
    costs[row] = costs.get(row, Cost()) + Cost(seconds=seconds, pairs=pairs, peak_device_bytes=peak)


def add_costs(parts: Iterable[Mapping[str, Cost]]) -> dict[str, Cost]:
    """Return row -> cost over all parts of an evaluation."""
    total: dict[str, Cost] = {}
    for part in parts:
        for row, cost in part.items():
            total[row] = total.get(row, Cost()) + cost
    return total
