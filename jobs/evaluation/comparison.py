"""Paired differences between any two rows of the results, over all pairs and per bin."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.evaluation.catalogue import BY_NAME, METRICS
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.resamples import Resamples
from jobs.evaluation.results import OVERALL, write_table
from jobs.evaluation.row_scores import RowScores, all_keys

LEVEL = 0.05
"""A difference is significant if its p-value is at most this."""

_PAIRS_AT_ONCE = 32
_SUMS_AT_ONCE = 2**20  # bounds the memory for suites of many images


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of two rows in one metric over one group of pairs.

    group: OVERALL or a bin.
    difference: mean of first - second over the pairs that both have, with its 95 % interval over images.
    p_value: of "the rows do not differ", two-sided, from the same resamples. Of a bin, corrected by Holm's method over
        the bins.
    """

    metric: str
    group: str
    first: str
    second: str
    difference: Value
    p_value: float

    @property
    def better(self) -> str | None:
        """The row that is significantly better, or None."""
        if self.p_value > LEVEL:
            return None
        wants_low = BY_NAME[self.metric].better == "lower"
        return self.first if (self.difference.mean < 0) == wants_low else self.second


def compare_rows(scores: Mapping[str, RowScores], *, bins: Sequence[str], samples: int) -> list[Comparison]:
    """Compare any two rows in every per-image metric of which lower or higher values are better.

    All rows and metrics share the resampled images, which are those of `bootstrap_interval` with seed 0. One metric is
    in memory at a time.

    scores: row -> its scores, on one suite.
    bins: names of the masks that each image has.
    samples: number of resamples.
    """
    keys = all_keys(scores.values())
    if not len(keys):
        return []
    resamples = Resamples(len(keys), samples)
    at_once = min(_PAIRS_AT_ONCE, max(1, _SUMS_AT_ONCE // (len(keys) * (1 + len(bins)))))
    found: list[Comparison] = []
    for metric in (metric.name for metric in METRICS if metric.better in ("lower", "higher")):
        grids = {row: of_row.grid(metric, keys, bins) for row, of_row in scores.items()}
        pairs = list(combinations((row for row, grid in grids.items() if not np.isnan(grid).all()), 2))
        for start in range(0, len(pairs), at_once):
            some = pairs[start : start + at_once]
            differences = [grids[first] - grids[second] for first, second in some]
            for (first, second), results in zip(some, _resample(differences, resamples), strict=True):
                found += _comparisons(metric, first, second, (OVERALL, *bins), results)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = largest
    return corrected


class _Differences(NamedTuple):
    """The groups of one pair of rows, (groups,) each; NaN in a group without a pair."""

    means: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray


def _resample(differences: Sequence[np.ndarray], resamples: Resamples) -> Iterator[_Differences]:
    """Yield the statistics of each table of differences, (images, bins)."""
    sums = np.concatenate([_by_group(np.nan_to_num(table)) for table in differences], axis=1)
    sizes = np.concatenate([_by_group((~np.isnan(table)).astype(float)) for table in differences], axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 in a group, or a resample of one, without a pair
        means = sums.sum(axis=0) / sizes.sum(axis=0)
        resampled = np.concatenate([(block @ sums) / (block @ sizes) for block in resamples])
    low, high = _interval(resampled)
    statistics = np.stack([means, low, high, _p_values(resampled)])
    num_groups = 1 + differences[0].shape[1]
    for start in range(0, len(means), num_groups):
        yield _Differences(*statistics[:, start : start + num_groups])


def _interval(resampled: np.ndarray) -> np.ndarray:
    """Return the 2.5 and 97.5 percentiles of each column."""
    if not np.isnan(resampled).any():
        return np.percentile(resampled, (2.5, 97.5), axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone
        return np.nanpercentile(resampled, (2.5, 97.5), axis=0)


def _p_values(resampled: np.ndarray) -> np.ndarray:
    """Return for each column twice the share of resamples beyond 0, with one more in the count: it is never 0."""
    count = (~np.isnan(resampled)).sum(axis=0)
    tail = np.minimum((resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0))
    return np.minimum(1, 2 * (tail + 1) / (count + 1))


def _by_group(table: np.ndarray) -> np.ndarray:
    """Return the sums over the bins of each group: (images, bins) -> (images, groups)."""
    return np.concatenate([table.sum(axis=1, keepdims=True), table], axis=1)


def _comparisons(
    metric: str, first: str, second: str, names: Sequence[str], results: _Differences
) -> Iterator[Comparison]:
    """Yield the comparison of each group that has pairs of both rows. names: of the groups."""
    groups = [number for number, mean in enumerate(results.means) if not np.isnan(mean)]
    p_values = {number: float(results.p_values[number]) for number in groups}
    bins = [number for number in groups if names[number] != OVERALL]
    p_values |= zip(bins, holm([p_values[number] for number in bins]), strict=True)
    for number in groups:
        mean, low, high = (float(part[number]) for part in results[:3])
        yield Comparison(
            metric=metric,
            group=names[number],
            first=first,
            second=second,
            difference=Value(mean, low, high),
            p_value=p_values[number],
        )


def write_comparisons(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write a parquet table with one row per comparison, in their order."""
    lines = [
        {
            "metric": one.metric,
            "group": one.group,
            "first": one.first,
            "second": one.second,
            "difference": one.difference.mean,
            "low": one.difference.low,
            "high": one.difference.high,
            "p_value": one.p_value,
            "better": one.better,
        }
        for one in comparisons
    ]
    write_table(path, lines)
