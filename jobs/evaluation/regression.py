"""Compare the results of one generator at two times: differences per bin, the images that got worse, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.comparison import Comparison, compare_rows
from jobs.evaluation.results import OVERALL, Score

DECIDING = "l1_hole_percent"
"""The metric whose change is judged."""

SHOWN = (DECIDING, "psnr", "ssim", "lpips_alex", "lpips_vgg")
"""Metrics whose changes are shown, where both results have them."""

_OLD, _NEW = "old", "new"


@dataclass(frozen=True, kw_only=True)
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


def find_changes(old: Sequence[Score], new: Sequence[Score], *, samples: int) -> list[Change]:
    """Compare the scores of one row on one suite, in the order of SHOWN.

    samples: number of resamples behind the intervals.
    """
    compared = [one for one in compare_rows({_NEW: new, _OLD: old}, samples=samples) if one.metric in SHOWN]
    before, after = ({(score.key, score.bin): score for score in scores} for scores in (old, new))
    changes = []
    for one in sorted(compared, key=lambda one: SHOWN.index(one.metric)):
        pairs = [
            (before[pair].values[one.metric], after[pair].values[one.metric])
            for pair in before.keys() & after.keys()
            if one.group in (OVERALL, pair[1]) and all(one.metric in each[pair].values for each in (before, after))
        ]
        means = np.array(pairs).mean(axis=0)
        changes.append(
            Change(metric=one.metric, group=one.group, old=float(means[0]), new=float(means[1]), difference=one)
        )
    return changes


def find_worst_images(old: Sequence[Score], new: Sequence[Score], count: int) -> list[tuple[str, float]]:
    """Return the images whose deciding metric, the mean over all masks, rose most: (key, rise), the largest first.

    count: most images to return. Those that did not rise are left out.
    """
    after = {(score.key, score.bin): score.values[DECIDING] for score in new}
    rises: dict[str, list[float]] = {}
    for score in old:
        if (score.key, score.bin) in after:
            rises.setdefault(score.key, []).append(after[score.key, score.bin] - score.values[DECIDING])
    means = {key: sum(values) / len(values) for key, values in rises.items()}
    worst = sorted((key for key in means if means[key] > 0), key=lambda key: (-means[key], key))
    return [(key, means[key]) for key in worst[:count]]


def find_regressions(changes: Sequence[Change], max_percent: float) -> list[Change]:
    """Return the changes of the deciding metric, over all pairs or in a bin, by which it is worse than allowed.

    max_percent: largest rise that is allowed, in percent of the old mean.
    """
    return [change for change in changes if change.metric == DECIDING and change.worse_percent > max_percent]
