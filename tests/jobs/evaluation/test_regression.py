"""What got worse, where and by how much, against hand-computed numbers."""

import pytest

from jobs.evaluation.regression import find_changes, find_regressions, find_worst_images
from jobs.evaluation.results import OVERALL, Score

BINS = ("0.1-0.2", "0.3-0.4")


def scores(changes, row="unet"):
    """Ten images with a hole L1 of 10 and 20 in two bins, and what is added to them."""
    return [
        Score(row=row, key=str(key), bin=bin, hole_ratio=0.15, values={"l1_hole_percent": base + add, "psnr": 30 - add})
        for key in range(10)
        for bin, base, add in zip(BINS, (10.0, 20.0), changes(key), strict=True)
    ]


OLD = scores(lambda key: (0, 0))


def test_a_generator_compared_with_itself_has_not_changed():
    changes = find_changes(OLD, OLD, samples=50)
    assert {(change.metric, change.group) for change in changes} == {
        (metric, group) for metric in ("l1_hole_percent", "psnr") for group in (OVERALL, *BINS)
    }
    for change in changes:
        difference = change.difference.difference
        assert change.worse_percent == difference.mean == difference.low == difference.high == 0
        assert change.difference.better is None
    assert find_regressions(changes, 0.0) == []
    assert find_worst_images(OLD, OLD, 3) == []


def test_the_bin_and_the_images_that_got_worse_are_found():
    new = scores(lambda key: (-1, 3 if key == 4 else 1 if key == 7 else 2 if key % 2 == 0 else 0))
    changes = {change.group: change for change in find_changes(OLD, new, samples=50) if change.metric != "psnr"}
    mean = (3 + 1 + 4 * 2) / 10
    assert changes[BINS[0]].worse_percent == pytest.approx(-10)
    assert changes[BINS[1]].worse_percent == pytest.approx(100 * mean / 20)
    assert changes[OVERALL].worse_percent == pytest.approx(100 * (mean - 1) / 2 / 15)
    assert changes[BINS[1]].difference.difference.mean == pytest.approx(mean)
    assert [change.group for change in find_regressions(list(changes.values()), 1.0)] == [BINS[1]]
    assert find_regressions(list(changes.values()), 6.1) == []
    assert find_worst_images(OLD, new, 2) == [("4", 1.0), ("0", 0.5)]


def test_a_metric_that_shall_be_high_is_worse_when_it_falls():
    changes = find_changes(OLD, scores(lambda key: (3, 3)), samples=50)
    assert [change.worse_percent for change in changes if change.metric == "psnr"] == pytest.approx([10.0] * 3)
