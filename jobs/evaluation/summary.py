"""The summary of an evaluation: means with intervals for each row, over all pairs and per bin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.evaluation.loop import PartResult
from jobs.evaluation.metrics.discriminability import discriminability
from jobs.evaluation.metrics.fid import fid
from jobs.evaluation.metrics.inception import Features, join_features
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.kid import kid
from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.evaluation.results import OVERALL, Group, Score
from jobs.evaluation.settings import EvaluateConfig
from masks.hole_ratio import BINS


def summarise(results: Sequence[PartResult], config: EvaluateConfig) -> dict[str, dict[str, Group]]:
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
        if "fid" not in missing:
            features = join_features([part for result in results for part in result.features.get(row, ())])
            groups = _add_set_metrics(groups, features, config)
        overall = groups[OVERALL]
        summary[row] = {**groups, OVERALL: replace(overall, metrics={**overall.metrics, **missing})}
    return summary


def late_pairs(results: Sequence[PartResult]) -> dict[str, list[tuple[str, str]]]:
    """Return row -> (key, bin) of the pairs that it did not fill in time, sorted."""
    late: dict[str, list[tuple[str, str]]] = {}
    for row, key, bin_name in sorted(pair for result in results for pair in result.over_limit):
        late.setdefault(row, []).append((key, bin_name))
    return late


def describe_sources(results: Sequence[PartResult]) -> dict[str, str]:
    """Return row -> text with the digest of all its files, in the order of the images, of each row that was read."""
    digests: dict[str, str] = {}
    for result in results:
        for row, of_images in result.sources.items():
            digests[row] = digests.get(row, "") + "".join(of_images)
    return {row: f"SHA-256 {hashlib.sha256(text.encode()).hexdigest()}" for row, text in digests.items()}


def _groups(scores: Sequence[Score], missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Group]:
    """Average the scores of one row over all pairs and over each bin that has pairs."""
    members = {OVERALL: sorted(scores, key=lambda score: (score.key, score.bin))}
    for name, _, _ in BINS:
        members[name] = [score for score in members[OVERALL] if score.bin == name]
    return {name: Group(len(group), _means(group, missing, config)) for name, group in members.items() if group}


def _means(scores: Sequence[Score], missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Metric]:
    names = dict.fromkeys(name for score in scores for name in score.values if name not in missing)
    return {name: _mean(name, scores, config) for name in names}


def _mean(name: str, scores: Sequence[Score], config: EvaluateConfig) -> Value:
    having = [score for score in scores if name in score.values]
    values, keys = [score.values[name] for score in having], [score.key for score in having]
    mean = bootstrap_interval(values, keys, seed=0, samples=config.bootstrap_samples)
    return mean if len(having) == len(scores) else replace(mean, pairs=len(having))


def _add_set_metrics(groups: Mapping[str, Group], features: Features, config: EvaluateConfig) -> dict[str, Group]:
    """Add the metrics that compare sets. Why one has no value is said in the group of all pairs alone."""
    added = {}
    for name, group in groups.items():
        part = features if name == OVERALL else features.of_bin(name)
        metrics = {"fid": fid(part), "kid": kid(part), **discriminability(part, samples=config.bootstrap_samples)}
        shown = {metric: value for metric, value in metrics.items() if name == OVERALL or isinstance(value, Value)}
        added[name] = replace(group, metrics={**group.metrics, **shown})
    return added
