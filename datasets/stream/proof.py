"""Prove a sample plan by walking it: every record is read once, by any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from datasets.stream.plan import Plan, positions
from files.errors import UserError
from files.seeds import derive_seed

_MAX_LOOKUPS = 20_000  # positions that are looked up one by one, as training does


class PlanError(UserError):
    """A record of the plan is not read exactly once. The message says which."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One epoch, read by some numbers of ranks.

    ranks: (first step, world size) of each period; every period after the first begins with a restart.
    """

    epoch: int
    ranks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The result of a proof.

    records, shards: of one epoch.
    passes: the passes that were walked.
    located: number of positions that were looked up as training looks them up.
    """

    records: int
    shards: int
    batch_size: int
    passes: tuple[Pass, ...]
    located: int


def prove(plan: Plan, batch_size: int, world_sizes: Sequence[int]) -> Proof:
    """Walk epoch 0 with each number of ranks, and epoch 1 with a restart from each number of ranks to each other.

    Each pass goes through all steps of all ranks and counts records. Every record must be read exactly once, and at
    each step all ranks must read equally many. Then the records that training looks up, at up to 20,000 positions, are
    compared with the order that was counted.

    batch_size: of the global batch.
    world_sizes: numbers of ranks.
    Raises PlanError if one of these checks fails, ValueError if the ranks cannot share the batch equally.
    """
    orders = {epoch: plan.epoch(epoch) for epoch in (0, 1)}
    middle = plan.num_records * 3 // (2 * batch_size)
    passes = [Pass(epoch=0, ranks=((0, world_size),)) for world_size in world_sizes]
    passes += [
        Pass(epoch=1, ranks=((plan.num_records // batch_size, before), (middle, after)))
        for before in world_sizes
        for after in world_sizes
        if before != after
    ]
    for epoch_pass in passes:
        _check_pass(plan.num_records, orders[epoch_pass.epoch], batch_size, epoch_pass)
    return Proof(
        records=plan.num_records,
        shards=len(plan.shard_sizes),
        batch_size=batch_size,
        passes=tuple(passes),
        located=_check_lookups(plan, orders),
    )


def _check_pass(num_records: int, order: np.ndarray, batch_size: int, epoch_pass: Pass) -> None:
    """Raise PlanError unless the pass reads every record exactly once."""
    start = epoch_pass.epoch * num_records
    read = np.fromiter(chain.from_iterable(_shares(num_records, batch_size, epoch_pass)), np.int64)
    inside = read[(read >= start) & (read < start + num_records)]
    times = np.bincount(order[inside - start], minlength=num_records)
    if len(times) != num_records or not (times == 1).all():
        wrong = int(np.flatnonzero(times != 1)[0])
        raise PlanError(
            f"epoch {epoch_pass.epoch}, ranks {epoch_pass.ranks}: record {wrong} is read {times[wrong]} times, not once"
        )


def _shares(num_records: int, batch_size: int, epoch_pass: Pass) -> Iterator[Sequence[int]]:
    """Yield the positions of each rank at each step of the pass, to the step that ends the epoch."""
    last = -(-(epoch_pass.epoch + 1) * num_records // batch_size)
    ends = [first for first, _ in epoch_pass.ranks[1:]] + [last]
    for (first, world_size), end in zip(epoch_pass.ranks, ends, strict=True):
        for step in range(first, end):
            for rank in range(world_size):
                share = positions(step, batch_size, rank=rank, world_size=world_size)
                if len(share) * world_size != batch_size:
                    raise PlanError(f"step {step}: rank {rank} of {world_size} reads {len(share)} of {batch_size}")
                yield share


def _check_lookups(plan: Plan, orders: dict[int, np.ndarray]) -> int:
    """Compare single look-ups with the orders. Returns their number; raises PlanError if one differs."""
    total = plan.num_records * len(orders)
    random = np.random.default_rng(derive_seed(plan.seed, "proof"))
    drawn = random.choice(total, min(total, _MAX_LOOKUPS), replace=False)
    limits = (0, plan.num_records - 1, plan.num_records, total - 1)
    # In ascending order, because each window is shuffled at its first look-up and only a few stay in the cache.
    lookups = np.union1d(drawn, limits)
    for position in lookups.tolist():
        epoch, index = divmod(position, plan.num_records)
        located, expected = plan.locate(position), (epoch, int(orders[epoch][index]))
        if located != expected:
            raise PlanError(f"position {position} leads to {located}, the plan says {expected}")
    return len(lookups)
