"""Pairs that were not filled in time are named and not scored, and every pair has its own numbers."""

import numpy as np
import pytest

from jobs.evaluation.costs import Cost, add_costs, measure_cost
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.fills import Holes, fill_separately
from jobs.evaluation.loop import PartResult, _add, _members, _Scored, divide_images
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.settings import EvaluateConfig, Version, parse_version
from masks.hole_ratio import BINS, hole_ratio
from tests.jobs.evaluation.metrics.pictures import noise

IMAGE = noise(16, 16, 3)
MASKS = np.stack([(noise(16, 16, seed=number) < 25 * (number + 1)).astype(np.uint8) for number in range(len(BINS))])
NAMES = [name for name, _, _ in BINS]
HOLES = Holes("key", IMAGE, MASKS)


def scored(filled):
    result = PartResult(first=0)
    values = []
    if filled.pairs:
        composites = filled.pictures["composite"]
        values = Evaluator(EvaluateConfig()).score_pixels(IMAGE, composites, MASKS[filled.pairs])
    _add(result, _Scored("row", HOLES, filled, values, None, _members("row", filled, NAMES)), NAMES)
    return result


def test_a_pair_that_was_not_filled_in_time_is_named_and_the_others_keep_their_bins():
    slow = {1, 4}

    def fill(image, mask):
        number = next(number for number, hole in enumerate(MASKS) if np.array_equal(hole, mask))
        return None if number in slow else np.full_like(image, number)

    result = scored(fill_separately(fill, HOLES))
    assert result.over_limit == [("row", "key", NAMES[1]), ("row", "key", NAMES[4])]
    assert [score.bin for score in result.scores] == [name for number, name in enumerate(NAMES) if number not in slow]
    for score in result.scores:
        number = NAMES.index(score.bin)
        assert score.hole_ratio == hole_ratio(MASKS[number])
        assert score.values == score_pair(IMAGE, np.full_like(IMAGE, number), MASKS[number])
    assert len(result.gallery["key"]) == 4


def test_a_row_that_fills_nothing_in_time_has_no_scores():
    result = scored(fill_separately(lambda image, mask: None, HOLES))
    assert result.scores == []
    assert len(result.over_limit) == len(BINS)
    assert result.gallery == {"key": {}}


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
def test_parts_are_whole_batches_and_cover_every_image_once(batch_size):
    for number in (0, 1, 8, 9, 130, 500):
        parts = divide_images(number, batch_size)
        assert [image for part in parts for image in part] == list(range(number))
        assert all(part.start % batch_size == 0 for part in parts)


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
