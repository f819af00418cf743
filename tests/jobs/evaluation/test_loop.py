"""Pairs that were not filled in time are named and not scored, and every pair has its own numbers."""

import numpy as np
import pytest

from jobs.evaluation import loop
from jobs.evaluation.costs import Cost, add_costs, measure_cost
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.fills import Filled, _fill_one_by_one
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.settings import EvaluateConfig, Version, parse_version
from masks.hole_ratio import BINS, hole_ratio
from tests.jobs.evaluation.metrics.pictures import noise

IMAGE = noise(16, 16, 3)
HOLES = np.stack([(noise(16, 16, seed=number) < 25 * (number + 1)).astype(np.uint8) for number in range(len(BINS))])
TRUTHS = np.broadcast_to(IMAGE, (len(BINS), *IMAGE.shape))


def scored(filled):
    result = loop.PartResult(first=0)
    loop._score(result, Evaluator(EvaluateConfig()), "row", "key", IMAGE, HOLES, filled)
    return result


def test_a_pair_that_was_not_filled_in_time_is_named_and_the_others_keep_their_bins():
    slow = {1, 4}

    def fill(image, mask):
        number = next(number for number, hole in enumerate(HOLES) if np.array_equal(hole, mask))
        return None if number in slow else np.full_like(image, number)

    filled = _fill_one_by_one(fill, "key", TRUTHS, HOLES)
    result = scored(filled)
    names = [name for name, _, _ in BINS]
    assert result.over_limit == [("row", "key", names[1]), ("row", "key", names[4])]
    assert [score.bin for score in result.scores] == [name for number, name in enumerate(names) if number not in slow]
    for score in result.scores:
        number = names.index(score.bin)
        assert score.hole_ratio == hole_ratio(HOLES[number])
        assert score.values == score_pair(IMAGE, np.full_like(IMAGE, number), HOLES[number])
    assert len(loop._members("row", filled)) == 4


def test_a_row_that_fills_nothing_in_time_has_no_scores():
    result = scored(_fill_one_by_one(lambda image, mask: None, "key", TRUTHS, HOLES))
    assert result.scores == []
    assert len(result.over_limit) == len(BINS)
    assert loop._members("row", Filled([], {})) == {}


def test_costs_of_parts_add_up():
    parts = [{}, {}]
    for part, pairs in zip(parts, (6, 3), strict=True):
        with measure_cost(part, "row", pairs):
            pass
    total = add_costs(parts)["row"]
    assert total.pairs == 9
    assert total.seconds == sum(part["row"].seconds for part in parts) > 0
    assert Cost(seconds=3.0, pairs=6, peak_device_bytes=5).to_json() == {
        "seconds": 3.0, "pairs": 6, "peak_device_bytes": 5, "seconds_per_image": 0.5,
    }  # fmt: skip
    assert (Cost(peak_device_bytes=5) + Cost(peak_device_bytes=3)).peak_device_bytes == 5


@pytest.mark.parametrize(
    ("address", "version"),
    [
        ("models:/inpaint-partial_conv@champion", Version("inpaint-partial_conv", "champion")),
        ("models:/inpaint-csa/12", Version("inpaint-csa", "12")),
        ("models:/inpaint-csa/latest", None),
        ("inpaint-csa@champion", None),
        ("models:/a/b/1", None),
        ("models:/a@b@c", None),
    ],
)
def test_addresses_of_versions_are_parsed(address, version):
    assert parse_version(address) == version
