"""The finished parts of an evaluation -> its table of scores, and means with intervals over all pairs and per bin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from files.durable import durable_file
from jobs.evaluation.metrics.discriminability import discriminability
from jobs.evaluation.metrics.fid import fid
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.kid import kid
from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.evaluation.parts import PartNote, Parts
from jobs.evaluation.results import FIXED_COLUMNS, OVERALL, Group, ScoreWriter
from jobs.evaluation.settings import EvaluateConfig

IDS_MOST_PAIRS = 40_000
"""Of more pairs P-IDS and U-IDS are not computed: their classifier needs all features at once."""

_IDS_BYTES_PER_PAIR = 130_000  # measured with 1,000 pairs


def summarise(parts: Parts, scores: Path, config: EvaluateConfig) -> dict[str, dict[str, Group]]:
    """Compute the groups of every row, and write the scores of all pairs, sorted by row, key and bin.

    One row of the results is in memory at a time.

    parts: all parts. A metric that is missing in one part is missing in the summary.
    scores: the parquet file to write.
    config: parameters of the evaluation.
    Returns row -> OVERALL or bin -> group.
    """
    notes = list(parts.notes())
    missing = {metric: reason for note in notes for metric, reason in note.missing.items()}
    rows = list(dict.fromkeys(row for note in notes for row in note.rows))
    summary: dict[str, dict[str, Group]] = {}
    with durable_file(scores) as file, ScoreWriter(file, parts.schema()) as writer:
        for row in sorted(rows):
            table = parts.scores(row)
            ordered = table.sort_by([("key", "ascending"), ("bin", "ascending")])
            writer.add(ordered)
            groups = _groups(ordered, missing, config)
            if "fid" not in missing:
                groups = _add_set_metrics(groups, table["bin"], parts.features(row), config)
            overall = groups[OVERALL]
            summary[row] = {**groups, OVERALL: replace(overall, metrics={**overall.metrics, **missing})}
    return {row: summary[row] for row in rows}


def late_pairs(notes: Iterable[PartNote]) -> dict[str, list[tuple[str, str]]]:
    """Return row -> (key, bin) of the pairs that it did not fill in time, sorted."""
    late: dict[str, list[tuple[str, str]]] = {}
    for row, key, bin_name in sorted(pair for note in notes for pair in note.over_limit):
        late.setdefault(row, []).append((key, bin_name))
    return late


def describe_sources(notes: Iterable[PartNote]) -> dict[str, str]:
    """Return row -> text with the digest of all its files, in the order of the images, of each row that was read."""
    digests: dict[str, hashlib._Hash] = {}
    for note in notes:
        for row, of_images in note.sources.items():
            digests.setdefault(row, hashlib.sha256()).update("".join(of_images).encode())
    return {row: f"SHA-256 {digest.hexdigest()}" for row, digest in digests.items()}


def _groups(table: pa.Table, missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Group]:
    """Average the scores of one row, sorted by key and bin, over all pairs and over each bin that has pairs."""
    bins = sorted(pc.unique(table["bin"]).to_pylist())
    members = {OVERALL: table} | {name: table.filter(pc.equal(table["bin"], name)) for name in bins}
    return {name: Group(len(group), _means(group, missing, config)) for name, group in members.items()}


def _means(table: pa.Table, missing: Mapping[str, Missing], config: EvaluateConfig) -> dict[str, Metric]:
    images = np.unique(table["key"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    means: dict[str, Metric] = {}
    for name in table.column_names:
        if name in FIXED_COLUMNS or name in missing:
            continue
        having = pc.is_valid(table[name]).to_numpy(zero_copy_only=False)
        if having.any():
            values = table[name].drop_null().to_numpy()
            mean = bootstrap_interval(values, images[having].tolist(), seed=0, samples=config.bootstrap_samples)
            means[name] = mean if having.all() else replace(mean, pairs=len(values))
    return means


def _add_set_metrics(
    groups: Mapping[str, Group], bins: pa.ChunkedArray, features: Features, config: EvaluateConfig
) -> dict[str, Group]:
    """Add the metrics that compare sets. Why one has no value is said in the group of all pairs alone.

    bins: of each composite of the features.
    """
    added = {}
    for name, group in groups.items():
        of_bin = np.flatnonzero(pc.equal(bins, name).to_numpy(zero_copy_only=False))
        part = features if name == OVERALL else replace(features, chosen=of_bin)
        metrics = {"fid": fid(part), "kid": kid(part), **_discriminability(part, config)}
        shown = {metric: value for metric, value in metrics.items() if name == OVERALL or isinstance(value, Value)}
        added[name] = replace(group, metrics={**group.metrics, **shown})
    return added


def _discriminability(features: Features, config: EvaluateConfig) -> dict[str, Value | Missing]:
    """Compute P-IDS and U-IDS, unless they would need too much memory."""
    if len(features) <= IDS_MOST_PAIRS:
        return discriminability(features, samples=config.bootstrap_samples)
    reason = (
        f"not computed: P-IDS and U-IDS of {len(features):,} pairs need about "
        f"{len(features) * _IDS_BYTES_PER_PAIR / 1e9:.0f} GB of memory; up to {IDS_MOST_PAIRS:,} pairs have them"
    )
    return dict.fromkeys(("p_ids_percent", "u_ids_percent"), Missing(reason))
