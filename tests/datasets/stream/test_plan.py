import time

import numpy as np
import pytest

from datasets.stream.plan import Plan, PlanConfig, positions
from files.seeds import derive_seed

SIZES = (7, 10, 1, 3, 12)


def test_every_epoch_reads_every_record_once_and_epochs_differ():
    plan = Plan(SIZES, 3, PlanConfig(window_shards=2))
    orders = [plan.epoch(epoch) for epoch in range(4)]
    for order in orders:
        assert sorted(order) == list(range(33))
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("batch_size", [1, 4, 6, 33, 50])
def test_the_stream_of_batches_is_the_epochs_one_after_another(batch_size):
    plan = Plan(SIZES, 3, PlanConfig(window_shards=2))
    steps = -(-99 // batch_size)
    stream = [plan.locate(p) for step in range(steps) for p in positions(step, batch_size)][:99]
    assert stream == [(epoch, record) for epoch in range(3) for record in plan.epoch(epoch)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_ranks_share_each_batch_without_overlap_or_loss(world_size):
    whole = [list(positions(step, 12)) for step in range(5)]
    for step in range(5):
        shares = [list(positions(step, 12, rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert len({len(share) for share in shares}) == 1
        assert sorted(p for share in shares for p in share) == whole[step]


def test_unequal_shares_are_refused():
    with pytest.raises(ValueError, match="cannot be shared equally by 5 workers"):
        positions(0, 12, world_size=5)


def test_records_stay_within_their_window_of_shards():
    plan = Plan((5,) * 12, 0, PlanConfig(window_shards=3))
    shards = [{int(r) // 5 for r in part} for part in np.split(plan.epoch(0), 4)]
    assert all(len(window) == 3 for window in shards)


def test_shards_of_a_window_are_those_its_positions_read():
    plan = Plan(SIZES, 3, PlanConfig(window_shards=2))
    shard_of = np.repeat(np.arange(5), SIZES)
    for position in range(66):
        epoch, record = plan.locate(position)
        assert plan.window(position)[0] == epoch
        assert shard_of[record] in plan.shards(*plan.window(position))
    assert [len(plan.shards(0, window)) for window in range(3)] == [2, 2, 1]
    assert plan.shards(0, 3) == plan.shards(1, 0)
    assert plan.shards(0, 7) == plan.shards(2, 1)


def test_the_order_is_pinned():
    # A change of this order would silently end every resumable run.
    assert Plan(SIZES, 11, PlanConfig(window_shards=2)).epoch(5)[:8].tolist() == [15, 14, 17, 12, 10, 7, 9, 13]


def test_seeds_differ_by_every_part_and_by_type():
    parts = [("mask", 0, "a"), ("mask", 1, "a"), ("mask", 0, "b"), ("augment", 0, "a"), ("mask", "0", "a"), ("mask0a",)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)
    assert all(0 <= derive_seed(*p) < 2**64 for p in parts)


def test_millions_of_records_are_planned_in_a_moment():
    start = time.monotonic()
    plan = Plan((5000,) * 1600, 0)
    [plan.locate(p) for p in positions(123_456, 512)]
    # The bound is a thousand times the usual time: it fails when somebody permutes the whole epoch per record.
    assert time.monotonic() - start < 30
