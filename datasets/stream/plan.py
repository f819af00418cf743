"""The sample plan: which record is read at which step. A pure function that knows no rank and no worker.

The training stream is one endless sequence of positions, for N records in global batches of B.
Step s reads the positions s*B ... s*B + B - 1.
Position g belongs to epoch g // N. It is the record number g % N in the order of that epoch. So every epoch reads every
record exactly once, for any B.
Of W ranks, rank r reads the positions p of a batch with p % W == r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from files.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Settings of the shuffling of records.

    window_shards: number of shards in a window. Shards are shuffled, then records within each window of shards. A large
        window mixes well; a small window lets an object store read whole shards one after another.
    """

    window_shards: int = 16

    def __post_init__(self) -> None:
        if self.window_shards < 1:
            raise ValueError(f"window_shards must be at least 1, got {self.window_shards}")


@dataclass(frozen=True, eq=False)  # compared by identity: its windows are cached per plan
class Plan:
    """The order of the training stream.

    shard_sizes: records in each shard, at least 1.
    Needs memory for a few windows, not for the data set, so it works for millions of records.
    Raises ValueError without shards or for an empty shard.
    """

    shard_sizes: tuple[int, ...]
    seed: int
    config: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        if not self.shard_sizes or min(self.shard_sizes) < 1:
            raise ValueError(f"a plan needs shards of at least one record, got sizes {self.shard_sizes}")

    @cached_property
    def num_records(self) -> int:
        """Return the number of records in one epoch."""
        return sum(self.shard_sizes)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (epoch, record) of a position. Records are numbered in the order of shards, from 0."""
        epoch, window, index = self._place(position)
        return epoch, int(_window(self, epoch, window)[index])

    def position_of(self, epoch: int, record: int) -> int:
        """Return the position at which an epoch reads a record: the inverse of `locate`."""
        ends, shards = _epoch(self, epoch)
        shard = int(np.searchsorted(_starts(self), record, side="right")) - 1
        window = int(np.flatnonzero(shards == shard)[0]) // self.config.window_shards
        index = int(np.flatnonzero(_window(self, epoch, window) == record)[0])
        return epoch * self.num_records + (int(ends[window - 1]) if window else 0) + index

    def window(self, position: int) -> tuple[int, int]:
        """Return (epoch, window) of a position."""
        return self._place(position)[:2]

    def shards(self, epoch: int, window: int) -> list[int]:
        """Return the shards of a window. Windows beyond the last one of the epoch are those of the next epoch."""
        ends, shards = _epoch(self, epoch)
        if window >= len(ends):
            return self.shards(epoch + 1, window - len(ends))
        first = window * self.config.window_shards
        return shards[first : first + self.config.window_shards].tolist()

    def _place(self, position: int) -> tuple[int, int, int]:
        """Return (epoch, window, index in the window) of a position."""
        epoch, index = divmod(position, self.num_records)
        ends, _ = _epoch(self, epoch)
        window = int(np.searchsorted(ends, index, side="right"))
        return epoch, window, index - (int(ends[window - 1]) if window else 0)

    def epoch(self, epoch: int) -> np.ndarray:
        """Return the order of one epoch: (N,) record numbers, each exactly once."""
        ends, _ = _epoch(self, epoch)
        return np.concatenate([_window(self, epoch, window) for window in range(len(ends))])


def sharing_problem(batch_size: int, world_size: int, micro_batches: int = 1) -> str:
    """Return why the ranks cannot share a batch equally; "" if they can.

    batch_size: of the global batch.
    world_size: number of ranks.
    micro_batches: micro-batches into which each rank divides its share equally.
    """
    divisor = world_size * micro_batches
    if batch_size % divisor == 0:
        return ""
    each_in = f", each in {micro_batches} micro-batches" if micro_batches > 1 else ""
    larger = -(-batch_size // divisor) * divisor
    return (
        f"batch_size {batch_size} cannot be shared equally by {world_size} workers{each_in}; "
        f"the next that can is {larger}"
    )


def positions(step: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Sequence[int]:
    """Return the positions that one rank reads at a global step.

    Raises ValueError unless the ranks share the batch equally.
    """
    if problem := sharing_problem(batch_size, world_size):
        raise ValueError(problem)
    return range(step * batch_size + rank, (step + 1) * batch_size, world_size)


@lru_cache(maxsize=4)
def _epoch(plan: Plan, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the end of each window in the order of the epoch, and the shards in the order of reading."""
    shards = _generator(plan.seed, "shards", epoch).permutation(len(plan.shard_sizes))
    counts = np.asarray(plan.shard_sizes)[shards]
    return np.cumsum(np.add.reduceat(counts, np.arange(0, len(shards), plan.config.window_shards))), shards


@lru_cache(maxsize=8)
def _window(plan: Plan, epoch: int, window: int) -> np.ndarray:
    """Return the records of one window of an epoch, in the order of reading."""
    starts = _starts(plan)
    records = np.concatenate(
        [np.arange(starts[s], starts[s] + plan.shard_sizes[s]) for s in plan.shards(epoch, window)]
    )
    return _generator(plan.seed, "records", epoch, window).permutation(records)


@lru_cache(maxsize=2)
def _starts(plan: Plan) -> np.ndarray:
    """Return the first record of each shard, and the number of records."""
    return np.concatenate([[0], np.cumsum(plan.shard_sizes)])


def _generator(*parts: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))
