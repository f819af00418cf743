"""The sample plan held against its promise, by going through it: every record once, however the work is shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from datasets.stream.plan import Plan, positions
from files.errors import UserError
from files.seeds import derive_seed

_LOCATED = 20_000  # positions looked up one by one, as training does; the others are read from the epoch's order


class PlanError(UserError):
    """The plan breaks its promise; the message says where."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One epoch as some ranks read it. ranks: (first step, world size) of each stretch; a second one is a restart."""

    epoch: int
    ranks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was gone through, and held. located: positions that were looked up as training looks them up."""

    records: int
    shards: int
    batch_size: int
    passes: tuple[Pass, ...]
    located: int


def prove(plan: Plan, batch_size: int, world_sizes: Sequence[int]) -> Proof:
    """Read epoch 0 with each number of ranks, and epoch 1 with a restart from each number to each other.

    Every pass goes through all steps of all ranks and counts records: each must be read exactly once, and at each step
    by every rank equally many. Then what training looks up at positions, all or 20,000 of them, is compared with the
    order that was counted.
    Raises PlanError where one of these fails, ValueError if a number of ranks cannot share the batch equally.
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
    for each in passes:
        _check_pass(plan.num_records, orders[each.epoch], batch_size, each)
    return Proof(
        records=plan.num_records,
        shards=len(plan.shard_sizes),
        batch_size=batch_size,
        passes=tuple(passes),
        located=_check_lookups(plan, orders),
    )


def _check_pass(num_records: int, order: np.ndarray, batch_size: int, each: Pass) -> None:
    start = each.epoch * num_records
    read = np.fromiter(chain.from_iterable(_ranges(num_records, batch_size, each)), np.int64)
    inside = read[(read >= start) & (read < start + num_records)]
    times = np.bincount(order[inside - start], minlength=num_records)
    if len(times) != num_records or not (times == 1).all():
        wrong = int(np.flatnonzero(times != 1)[0])
        raise PlanError(
            f"epoch {each.epoch}, ranks {each.ranks}: record {wrong} is read {times[wrong]} times, not once"
        )


def _ranges(num_records: int, batch_size: int, each: Pass) -> Iterator[Sequence[int]]:
    """The positions of each rank at each step that reads of the epoch."""
    last = -(-(each.epoch + 1) * num_records // batch_size)
    ends = [first for first, _ in each.ranks[1:]] + [last]
    for (first, world_size), end in zip(each.ranks, ends, strict=True):
        for step in range(first, end):
            for rank in range(world_size):
                share = positions(step, batch_size, rank=rank, world_size=world_size)
                if len(share) * world_size != batch_size:
                    raise PlanError(f"step {step}: rank {rank} of {world_size} reads {len(share)} of {batch_size}")
                yield share


def _check_lookups(plan: Plan, orders: dict[int, np.ndarray]) -> int:
    total = plan.num_records * len(orders)
    drawn = np.random.default_rng(derive_seed(plan.seed, "proof")).choice(total, min(total, _LOCATED), replace=False)
    edges = (0, plan.num_records - 1, plan.num_records, total - 1)
    places = np.union1d(drawn, edges)  # in order, since each window of the plan is shuffled when first asked for
    for position in places.tolist():
        epoch, place = divmod(position, plan.num_records)
        found = plan.locate(position)
        if found != (epoch, expected := int(orders[epoch][place])):
            raise PlanError(f"position {position} leads to {found}, the plan says {(epoch, expected)}")
    return len(places)
