"""The charts of the page as tables for `dvc plots`, which draws them for several revisions side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from jobs.evaluation.metrics.value import Value
from jobs.report.charts import CHARTED
from jobs.report.data import REFERENCE_METRIC, Page, rows_by_bin, sort_rows
from jobs.report.text import encodable


def plot_tables(page: Page) -> dict[str, str]:
    """Return path -> table in the format TSV.

    bins/<metric>.tsv: row, bin, mean, low, high; of every metric that the page draws over the bins.
    costs.tsv: row, mean, low, high of hole L1, images_seen, parameters; of every trained generator.
    """
    tables = {}
    for metric in (REFERENCE_METRIC, *CHARTED):
        lines = [
            (row.id, name, value.mean, value.low, value.high)
            for row in rows_by_bin(page)
            for name, _ in page.bins
            if isinstance(value := row.by_bin.get(name, {}).get(metric), Value)
        ]
        if lines:
            tables[f"bins/{metric}.tsv"] = _table(("row", "bin", "mean", "low", "high"), lines)
    costs = [
        (row.id, value.mean, value.low, value.high, row.cost.images_seen, row.cost.parameters)
        for row in sort_rows(page.rows)
        if row.cost is not None and isinstance(value := row.metrics.get(REFERENCE_METRIC), Value)
    ]
    return tables | {"costs.tsv": _table(("row", "mean", "low", "high", "images_seen", "parameters"), costs)}


def _table(names: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerows([names, *lines])
    return encodable(file.getvalue())
