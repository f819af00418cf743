"""The proof accepts the plan and refuses plans that are broken on purpose."""

import numpy as np
import pytest

from datasets.stream import proof
from datasets.stream.plan import Plan, PlanConfig, positions
from datasets.stream.proof import PlanError, prove


@pytest.mark.parametrize(("sizes", "batch_size"), [((7, 6, 6, 1), 4), ((5,), 12), ((3,) * 9, 6), ((40, 1, 2), 8)])
def test_the_plan_holds_for_any_shards_and_numbers_of_ranks(sizes, batch_size):
    worlds = [w for w in range(1, batch_size + 1) if batch_size % w == 0]
    found = prove(Plan(sizes, 3, PlanConfig(window_shards=2)), batch_size, worlds)
    assert found.records == sum(sizes)
    assert {each.ranks[0][1] for each in found.passes if len(each.ranks) == 1} == set(worlds)
    assert sum(len(each.ranks) == 2 for each in found.passes) == len(worlds) * (len(worlds) - 1)
    assert found.located == 2 * sum(sizes)


def test_a_restart_lies_inside_the_epoch_it_is_proved_for():
    found = prove(Plan((50, 50), 0), 8, [1, 2, 4])
    for each in found.passes:
        if len(each.ranks) == 2:
            (first, _), (middle, _) = each.ranks
            assert 100 < 8 * middle < 200
            assert 8 * first <= 100 < 8 * (first + 1)


class Twice(Plan):
    """Reads one record twice and another never."""

    def epoch(self, epoch):
        order = super().epoch(epoch).copy()
        order[3] = order[4]
        return order


class Short(Plan):
    def epoch(self, epoch):
        return super().epoch(epoch)[:-1]


class Elsewhere(Plan):
    """Looks up what the order does not say."""

    def locate(self, position):
        epoch, record = super().locate(position)
        return epoch, record ^ (position == 11)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Twice, "is read [02] times, not once"), (Elsewhere, r"position 11 leads to")],
)
def test_a_broken_plan_is_refused(kind, message):
    with pytest.raises(PlanError, match=message):
        prove(kind((8, 8), 1), 4, [1, 2])


def test_an_order_that_lacks_records_is_refused():
    with pytest.raises((PlanError, IndexError)):
        prove(Short((8, 8), 1), 4, [1])


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (lambda step, size, *, rank, world_size: range(step * size, (step + 1) * size, world_size), "times, not once"),
        (
            lambda step, size, *, rank, world_size: range(step * size + rank, (step + 1) * size - 1, world_size),
            "reads ",
        ),
        (
            lambda step, size, *, rank, world_size: positions(
                step + (step == 5), size, rank=rank, world_size=world_size
            ),
            "times, not once",
        ),
    ],
)
def test_ranks_that_share_wrongly_are_refused(monkeypatch, share, message):
    monkeypatch.setattr(proof, "positions", share)
    with pytest.raises(PlanError, match=message):
        prove(Plan((16, 16), 1), 4, [2])


def test_a_batch_that_cannot_be_shared_is_the_callers_mistake():
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared equally by 3 workers"):
        prove(Plan((8, 8), 1), 4, [3])


def test_a_large_plan_is_gone_through_whole():
    sizes = tuple(np.full(64, 512).tolist())
    found = prove(Plan(sizes, 1), 1024, [1, 512])
    assert found.records == 64 * 512
    assert found.located >= 20_000
