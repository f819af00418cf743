"""The sample plan: which record is read at which step, a pure function that knows no rank and no worker.

The training stream is one endless sequence of positions. Step s of a global batch B takes the positions
s*B ... s*B + B - 1; position g belongs to epoch g // N and is the (g % N)-th record of that epoch's order, so every
epoch reads every record exactly once, whatever B is. A rank of W takes the positions p of a batch with p % W == rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from files.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How records are shuffled.

    window_shards: records are shuffled within groups of this many shards, which are themselves shuffled: large enough
        to mix, small enough that an object store still reads whole shards one after another.
    """

    window_shards: int = 16

    def __post_init__(self) -> None:
        if self.window_shards < 1:
            raise ValueError(f"window_shards must be at least 1, got {self.window_shards}")


@dataclass(frozen=True, eq=False)  # compared by identity: its windows are cached per plan
class Plan:
    """The order of the training stream for shards of the given sizes.

    Costs memory for one window, not for the data set, so that it holds for millions of records.
    """

    shard_sizes: tuple[int, ...]
    seed: int
    config: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        if not self.shard_sizes or min(self.shard_sizes) < 1:
            raise ValueError(f"a plan needs shards of at least one record, got sizes {self.shard_sizes}")

    @cached_property
    def num_records(self) -> int:
        """Records in one epoch."""
        return sum(self.shard_sizes)

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, record) of one position of the stream; record counts in shard order from 0."""
        epoch, window, place = self._place(position)
        return epoch, int(_window(self, epoch, window)[place])

    def window(self, position: int) -> tuple[int, int]:
        """(epoch, window) that one position of the stream reads in."""
        return self._place(position)[:2]

    def shards(self, epoch: int, window: int) -> list[int]:
        """The shards of one window, and of the first windows of the next epoch once this one has no more."""
        ends, shards = _epoch(self, epoch)
        if window >= len(ends):
            return self.shards(epoch + 1, window - len(ends))
        first = window * self.config.window_shards
        return shards[first : first + self.config.window_shards].tolist()

    def _place(self, position: int) -> tuple[int, int, int]:
        """(epoch, window, place in the window) of one position of the stream."""
        epoch, place = divmod(position, self.num_records)
        ends, _ = _epoch(self, epoch)
        window = int(np.searchsorted(ends, place, side="right"))
        return epoch, window, place - (int(ends[window - 1]) if window else 0)

    def epoch(self, epoch: int) -> np.ndarray:
        """The whole order of one epoch: (N,) record numbers, each exactly once."""
        ends, _ = _epoch(self, epoch)
        return np.concatenate([_window(self, epoch, window) for window in range(len(ends))])


def sharing_problem(batch_size: int, world_size: int, parts: int = 1) -> str:
    """Why a batch cannot be shared equally by so many ranks, each taking its share in equal parts; "" if it can."""
    shares = world_size * parts
    if batch_size % shares == 0:
        return ""
    each = f", each in {parts} parts" if parts > 1 else ""
    fit = -(-batch_size // shares) * shares
    return f"batch_size {batch_size} cannot be shared equally by {world_size} workers{each}; the next that can is {fit}"


def positions(step: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Sequence[int]:
    """Positions of the stream that one rank reads at a global step.

    Raises ValueError unless the ranks share the batch equally.
    """
    if problem := sharing_problem(batch_size, world_size):
        raise ValueError(problem)
    return range(step * batch_size + rank, (step + 1) * batch_size, world_size)


@lru_cache(maxsize=4)
def _epoch(plan: Plan, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one epoch: where each window of shards ends in its order, and the shards in the order they are read."""
    shards = _generator(plan.seed, "shards", epoch).permutation(len(plan.shard_sizes))
    counts = np.asarray(plan.shard_sizes)[shards]
    starts = range(0, len(shards), plan.config.window_shards)
    return np.cumsum([counts[i : i + plan.config.window_shards].sum() for i in starts]), shards


@lru_cache(maxsize=8)
def _window(plan: Plan, epoch: int, window: int) -> np.ndarray:
    """Records of one window of an epoch, in the order they are read."""
    starts = _starts(plan)
    records = np.concatenate(
        [np.arange(starts[s], starts[s] + plan.shard_sizes[s]) for s in plan.shards(epoch, window)]
    )
    return _generator(plan.seed, "records", epoch, window).permutation(records)


@lru_cache(maxsize=2)
def _starts(plan: Plan) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(plan.shard_sizes)])


def _generator(*parts: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))
