"""The summary of an evaluation: means with intervals for each row, over all pairs and per bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.evaluation.loop import ShardResult
from jobs.evaluation.metrics.fid import fid
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.value import Metric, Missing
from jobs.evaluation.results import OVERALL, Group, Score
from jobs.evaluation.settings import EvaluateConfig
from masks.hole_ratio import BINS


def summarise(results: Sequence[ShardResult], config: EvaluateConfig) -> dict[str, dict[str, Group]]:
    """Compute the groups of every row.

    results: of all shards, in order. A metric that is missing in one shard is missing in the summary.
    config: parameters of the evaluation.
    Returns row -> OVERALL or bin -> group.
    """
    missing = {metric: reason for result in results for metric, reason in result.missing.items()}
    scores: dict[str, list[Score]] = {}
    for result in results:
        for score in result.scores:
            scores.setdefault(score.row, []).append(score)
    summary: dict[str, dict[str, Group]] = {}
    for row, of_row in scores.items():
        groups = _groups(of_row, missing, config)
        of_set = {} if "fid" in missing else {"fid": fid([result.fid_sums[row] for result in results])}
        overall = Group(groups[OVERALL].pairs, {**groups[OVERALL].metrics, **missing, **of_set})
        summary[row] = {**groups, OVERALL: overall}
    return summary


def _groups(scores: Sequence[Score], missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Group]:
    """Average the scores of one row over all pairs and over each bin that has pairs."""
    members = {OVERALL: sorted(scores, key=lambda score: (score.key, score.bin))}
    for name, _, _ in BINS:
        members[name] = [score for score in members[OVERALL] if score.bin == name]
    return {name: Group(len(group), _means(group, missing, config)) for name, group in members.items() if group}


def _means(scores: Sequence[Score], missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Metric]:
    keys = [score.key for score in scores]
    return {
        name: bootstrap_interval(
            [score.values[name] for score in scores], keys, seed=0, samples=config.bootstrap_samples
        )
        for name in scores[0].values
        if name not in missing
    }
