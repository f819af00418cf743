"""The results of an evaluation and their files: a table with the scores of every pair, and a summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from files.durable import write_durably
from jobs.evaluation.metrics.value import Metric, Missing, Value

OVERALL = "overall"
"""The group of all pairs of a row. Every other group is a hole-ratio bin."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The metrics of one row on one pair of image and mask.

    bin: name of the mask's hole-ratio bin.
    values: metric -> number.
    """

    row: str
    key: str
    bin: str
    hole_ratio: float
    values: dict[str, float]


@dataclass(frozen=True)
class Group:
    """The metrics of one row over one group of pairs.

    pairs: number of pairs of image and mask.
    metrics: name -> value. The reasons of missing metrics are only in the group of all pairs.
    """

    pairs: int
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Summary:
    """The content of a summary file.

    suite: id of the frozen suite.
    images: number of images.
    rows: row -> OVERALL or bin -> group.
    over_limit: row -> (key, bin) of each pair that the row did not fill in time, and that is not in its groups.
    about: row -> what it is, such as the version of a registered model or the digest of a folder.
    """

    suite: str
    images: int
    rows: Mapping[str, Mapping[str, Group]]
    over_limit: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write a parquet table with one row per score, sorted by row, key and bin; null where a pair lacks a metric."""
    table = [
        {"row": score.row, "key": score.key, "bin": score.bin, "hole_ratio": score.hole_ratio, **score.values}
        for score in sorted(scores, key=lambda score: (score.row, score.key, score.bin))
    ]
    write_table(path, table)


def read_scores(path: Path) -> list[Score]:
    """Read the scores that `write_scores` wrote, in its order."""
    fixed = ("row", "key", "bin", "hole_ratio")
    scores = []
    for line in pq.read_table(path).to_pylist():
        values = {name: value for name, value in line.items() if name not in fixed and value is not None}
        scores.append(Score(**{name: line[name] for name in fixed}, values=values))
    return scores


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary as JSON; a missing metric is its reason as text."""
    rows = {
        row: {name: {"pairs": group.pairs, **_to_json(group.metrics)} for name, group in groups.items()}
        for row, groups in summary.rows.items()
    }
    tree = {"suite": summary.suite, "images": summary.images, "rows": rows}
    write_json(path, tree | {"over_limit": summary.over_limit, "about": summary.about})


def read_summary(path: Path) -> Summary:
    """Read the summary that `write_summary` wrote."""
    tree = json.loads(path.read_bytes())
    rows = {
        row: {name: Group(group.pop("pairs"), _from_json(group)) for name, group in groups.items()}
        for row, groups in tree["rows"].items()
    }
    over_limit = {row: [tuple(pair) for pair in pairs] for row, pairs in tree["over_limit"].items()}
    return Summary(tree["suite"], tree["images"], rows, over_limit, tree["about"])


def write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write a parquet table of lines, which need not have the same columns; null where a line lacks one."""
    names = dict.fromkeys(name for line in lines for name in line)  # `from_pylist` would take those of the first line
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [line.get(name) for line in lines] for name in names}), sink, compression="zstd")
    write_durably(path, sink.getvalue().to_pybytes())


def write_json(path: Path, tree: object) -> None:
    """Write a tree as indented JSON with sorted keys, so that equal trees give equal bytes."""
    write_durably(path, (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode())


def _to_json(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric.reason if isinstance(metric, Missing) else asdict(metric) for name, metric in metrics.items()}


def _from_json(metrics: Mapping[str, Any]) -> dict[str, Metric]:
    return {name: Missing(metric) if isinstance(metric, str) else Value(**metric) for name, metric in metrics.items()}
