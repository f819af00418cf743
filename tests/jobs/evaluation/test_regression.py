"""What got worse, where and by how much, against hand-computed numbers."""

import pytest

from jobs.evaluation.regression import find_changes, find_regressions, find_worst_images
from jobs.evaluation.results import OVERALL, Score
from tests.jobs.evaluation.score_tables import write_scores

BINS = ("0.1-0.2", "0.3-0.4")


@pytest.fixture
def scores(tmp_path):
    """Write ten images with a hole L1 of 10 and 20 in two bins, and what is added to them."""

    def write(changes):
        scores = [
            Score(row="unet", key=str(key), bin=bin, hole_ratio=0.15, values=values(base, add))
            for key in range(10)
            for bin, base, add in zip(BINS, (10.0, 20.0), changes(key), strict=True)
        ]
        return write_scores(tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet", scores)["unet"]

    return write


def values(base, add):
    return {"l1_hole_percent": base + add, "psnr": 30 - add}


@pytest.fixture
def old(scores):
    return scores(lambda key: (0, 0))


def test_a_generator_compared_with_itself_has_not_changed(old):
    changes = find_changes(old, old, bins=BINS, samples=50)
    assert {(change.metric, change.group) for change in changes} == {
        (metric, group) for metric in ("l1_hole_percent", "psnr") for group in (OVERALL, *BINS)
    }
    for change in changes:
        difference = change.difference.difference
        assert change.worse_percent == difference.mean == difference.low == difference.high == 0
        assert change.difference.better is None
    assert find_regressions(changes, 0.0) == []
    assert find_worst_images(old, old, 3, bins=BINS) == []


def test_the_bin_and_the_images_that_got_worse_are_found(old, scores):
    new = scores(lambda key: (-1, 3 if key == 4 else 1 if key == 7 else 2 if key % 2 == 0 else 0))
    changes = {
        change.group: change for change in find_changes(old, new, bins=BINS, samples=50) if change.metric != "psnr"
    }
    mean = (3 + 1 + 4 * 2) / 10
    assert changes[BINS[0]].worse_percent == pytest.approx(-10)
    assert changes[BINS[1]].worse_percent == pytest.approx(100 * mean / 20)
    assert changes[OVERALL].worse_percent == pytest.approx(100 * (mean - 1) / 2 / 15)
    assert changes[BINS[1]].difference.difference.mean == pytest.approx(mean)
    assert [change.group for change in find_regressions(list(changes.values()), 1.0)] == [BINS[1]]
    assert find_regressions(list(changes.values()), 6.1) == []
    assert find_worst_images(old, new, 2, bins=BINS) == [("4", 1.0), ("0", 0.5)]


def test_a_metric_that_shall_be_high_is_worse_when_it_falls(old, scores):
    changes = find_changes(old, scores(lambda key: (3, 3)), bins=BINS, samples=50)
    assert [change.worse_percent for change in changes if change.metric == "psnr"] == pytest.approx([10.0] * 3)
