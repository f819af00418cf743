"""Compare the results of one generator at two times: differences per bin, the images that got worse, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.comparison import Comparison, compare_rows
from jobs.evaluation.results import OVERALL
from jobs.evaluation.row_scores import RowScores, all_keys

DECIDING = "l1_hole_percent"
"""The metric whose change is judged."""

SHOWN = (DECIDING, "psnr", "ssim", "lpips_alex", "lpips_vgg")
"""Metrics whose changes are shown, where both results have them."""

_OLD, _NEW = "old", "new"


@dataclass(frozen=True)
class Change:
    """The change of one metric over one group of pairs.

    group: OVERALL or a bin.
    old, new: means over the pairs that both results have.
    difference: new - old with its 95 % interval over images and its p-value, see `Comparison`.
    """

    metric: str
    group: str
    old: float
    new: float
    difference: Comparison

    @property
    def worse_percent(self) -> float:
        """By how much the new mean is worse, in percent of the old one; below 0 if it is better."""
        change = self.new - self.old if BY_NAME[self.metric].better == "lower" else self.old - self.new
        return 100 * change / abs(self.old) if self.old else 100 * float(np.sign(change))


def find_changes(old: RowScores, new: RowScores, *, bins: Sequence[str], samples: int) -> list[Change]:
    """Compare the scores of one row on one suite, in the order of SHOWN.

    bins: names of the masks that each image has.
    samples: number of resamples behind the intervals.
    """
    compared = compare_rows({_NEW: new, _OLD: old}, bins=bins, samples=samples)
    keys = all_keys((old, new))
    changes = []
    for metric in SHOWN:
        before, after = (scores.grid(metric, keys, bins) for scores in (old, new))
        has_both = ~np.isnan(before + after)
        for one in (one for one in compared if one.metric == metric):
            group = slice(None) if one.group == OVERALL else list(bins).index(one.group)
            means = (float(grid[:, group][has_both[:, group]].mean()) for grid in (before, after))
            changes.append(Change(metric, one.group, *means, one))
    return changes


def find_worst_images(old: RowScores, new: RowScores, count: int, *, bins: Sequence[str]) -> list[tuple[str, float]]:
    """Return the images whose deciding metric, the mean over all masks, rose most: (key, rise), the largest first.

    count: most images to return. Those that did not rise are left out.
    bins: names of the masks that each image has.
    """
    keys = all_keys((old, new))
    rises = new.grid(DECIDING, keys, bins) - old.grid(DECIDING, keys, bins)
    num_masks = (~np.isnan(rises)).sum(axis=1)
    means = np.nan_to_num(rises).sum(axis=1) / np.maximum(num_masks, 1)
    worst = np.argsort(-means, kind="stable")[:count]  # of equal ones the first key
    return [(keys[int(number)].as_py(), float(means[number])) for number in worst if means[number] > 0]


def find_regressions(changes: Sequence[Change], max_percent: float) -> list[Change]:
    """Return the changes of the deciding metric, over all pairs or in a bin, by which it is worse than allowed.

    max_percent: largest rise that is allowed, in percent of the old mean.
    """
    return [change for change in changes if change.metric == DECIDING and change.worse_percent > max_percent]
