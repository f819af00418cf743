"""The results of an evaluation and their files: a table with the scores of every pair, and a summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from files.durable import write_durably
from jobs.evaluation.metrics.value import Metric, Missing, Value

OVERALL = "overall"
"""The group of all pairs of a row. Every other group is a hole-ratio bin."""

FIXED_COLUMNS = ("row", "key", "bin", "hole_ratio")
"""Columns of the table of scores; every other is a metric."""


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


def score_lines(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Return the lines of a table of scores, which may have different metrics."""
    return [
        {"row": score.row, "key": score.key, "bin": score.bin, "hole_ratio": score.hole_ratio, **score.values}
        for score in scores
    ]


class ScoreWriter:
    """Write the parquet table of all scores, one row of the results after another, in `file`.

    schema: of the table; a metric that a row lacks is null there.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._schema = schema

    def __enter__(self) -> ScoreWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self._writer.close()

    def add(self, scores: pa.Table) -> None:
        """Add the scores of one row of the results."""
        empty = self._schema.empty_table()
        self._writer.write_table(pa.concat_tables([empty, scores], promote_options="default").cast(self._schema))


def read_scores(path: Path) -> list[Score]:
    """Read a table of scores, sorted by row, key and bin."""
    scores = []
    for line in pq.read_table(path).to_pylist():
        values = {name: value for name, value in line.items() if name not in FIXED_COLUMNS and value is not None}
        scores.append(Score(**{name: line[name] for name in FIXED_COLUMNS}, values=values))
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
