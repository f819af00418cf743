"""Paired differences of any two rows against `paired_difference` and a slow loop."""

from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.evaluation import comparison
from jobs.evaluation.comparison import holm, write_comparisons
from jobs.evaluation.metrics.intervals import bootstrap_interval, paired_difference
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Score
from masks.hole_ratio import BINS
from tests.jobs.evaluation.score_tables import write_scores

NAMES = [name for name, _, _ in BINS]


def scores(row, values, metric="l1_hole_percent"):
    """values: (images, bins), NaN where there is no score."""
    return [
        Score(row=row, key=f"{image:03d}", bin=name, hole_ratio=0.1, values={metric: float(value)})
        for image, of_image in enumerate(values)
        for (name, _, _), value in zip(BINS, of_image, strict=True)
        if not np.isnan(value)
    ]


@pytest.fixture
def compare_rows(tmp_path):
    """Compare rows, each a list of scores, by way of their file."""

    def run(rows, samples):
        found = write_scores(tmp_path / "scores.parquet", [score for of_row in rows.values() for score in of_row])
        return comparison.compare_rows(found, bins=NAMES, samples=samples)

    return run


def rows(**values):
    return {row: scores(row, of_row) for row, of_row in values.items()}


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(10, 5, (40, 6))
    return {name: difficulty + shift + rng.normal(0, 0.3, (40, 6)) for name, shift in (("a", 0), ("b", 1), ("c", 0))}


def test_every_two_rows_are_compared_with_the_resamples_of_single_rows(noisy, compare_rows):
    found = {(one.first, one.second, one.group): one for one in compare_rows(rows(**noisy), samples=300)}
    groups = [OVERALL, *(name for name, _, _ in BINS)]
    assert set(found) == {(*pair, group) for pair in combinations("abc", 2) for group in groups}
    for (first, second, group), one in found.items():
        columns = slice(None) if group == OVERALL else [groups.index(group) - 1]
        values = [noisy[row][:, columns].ravel() for row in (first, second)]
        images = np.arange(40).repeat(len(values[0]) // 40)
        expected = paired_difference(*values, images, seed=0, samples=300)
        for part in ("mean", "low", "high"):
            assert getattr(one.difference, part) == pytest.approx(getattr(expected, part), rel=1e-9)
        assert one.better == {("a", "b"): "a", ("b", "c"): "c"}.get((first, second), one.better)
    assert found["a", "c", OVERALL].better is None


def test_a_row_does_not_differ_from_its_copy_to_the_last_bit(noisy, compare_rows):
    found = compare_rows(rows(a=noisy["a"], copy=noisy["a"]), samples=100)
    assert {one.difference for one in found} == {Value(0.0, 0.0, 0.0)}
    assert {(one.p_value, one.better) for one in found} == {(1.0, None)}


def test_of_a_metric_where_more_is_better_the_higher_row_wins(noisy, compare_rows):
    psnr = {row: scores(row, noisy[row], "psnr") for row in ("a", "b")}
    assert {one.better for one in compare_rows(psnr, samples=300)} == {"b"}


def test_pairs_that_one_row_lacks_are_left_out_and_a_group_without_pairs_is_not_compared(noisy, compare_rows):
    few = noisy["b"].copy()
    few[:, 1] = np.nan
    few[:30, 2] = np.nan
    found = {one.group: one.difference for one in compare_rows(rows(a=noisy["a"], b=few), samples=200)}
    assert "0.1-0.2" not in found
    values = (noisy["a"] - few)[30:, 2]
    assert found["0.2-0.3"].mean == pytest.approx(values.mean())
    alone = bootstrap_interval(values, range(10), seed=0, samples=200)
    width = found["0.2-0.3"].high - found["0.2-0.3"].low
    assert width == pytest.approx(alone.high - alone.low, rel=0.5)
    everything = (noisy["a"] - few).ravel()
    assert found[OVERALL].mean == pytest.approx(np.nanmean(everything))


def test_p_values_are_shares_of_resamples_corrected_over_bins(noisy, compare_rows):
    found = {one.group: one for one in compare_rows(rows(a=noisy["a"], c=noisy["c"]), samples=200)}
    rng = np.random.default_rng(0)
    draws = [rng.integers(40, size=(200, 40))]
    values = noisy["a"] - noisy["c"]

    def p_value(columns):
        means = np.array([values[draw][:, columns].mean() for draw in draws[0]])
        return min(1, 2 * (min((means <= 0).sum(), (means >= 0).sum()) + 1) / 201)

    assert found[OVERALL].p_value == pytest.approx(p_value(slice(None)))
    corrected = holm([p_value([number]) for number in range(6)])
    assert [found[name].p_value for name, _, _ in BINS] == pytest.approx(corrected)


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_comparisons_are_kept_as_a_table(noisy, compare_rows, tmp_path):
    found = compare_rows(rows(a=noisy["a"], b=noisy["b"]), samples=50)
    write_comparisons(tmp_path / "comparisons.parquet", found)
    lines = pq.read_table(tmp_path / "comparisons.parquet").to_pylist()
    assert len(lines) == len(found) == 7
    assert lines[0] == {
        "metric": "l1_hole_percent", "group": OVERALL, "first": "a", "second": "b",
        "difference": found[0].difference.mean, "low": found[0].difference.low, "high": found[0].difference.high,
        "p_value": found[0].p_value, "better": "a",
    }  # fmt: skip
    assert compare_rows({}, samples=50) == []
