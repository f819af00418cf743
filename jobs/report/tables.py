"""The tables of the page: all rows by all metrics, and hole L1 by bin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.report.data import REFERENCE_METRIC, Page, Row, sort_rows


class Cell(NamedTuple):
    """The content of one cell.

    text: a number, or a dash.
    beneath: its interval, or a second number.
    footnote: number of the footnote with the reason why there is no value.
    """

    text: str
    beneath: str = ""
    is_best: bool = False
    footnote: int | None = None


class Heading(NamedTuple):
    """The heading of one column. hint: tells which values are better."""

    title: str
    unit: str
    hint: str


class Table(NamedTuple):
    """A table of methods: its headings, each row with one cell per heading, and its footnotes."""

    headings: list[Heading]
    rows: list[tuple[Row, list[Cell]]]
    footnotes: list[str]


class _Column(NamedTuple):
    """Format of the values of a metric. digits: after the point."""

    name: str
    title: str
    unit: str = ""
    digits: int = 3
    better: Literal["lower", "higher", "truth"] | None = None


_COLUMNS = (
    _Column("l1_hole_percent", "L1 in hole", "%", 2, "lower"),
    _Column("l1_percent", "L1", "%", 2, "lower"),
    _Column("l2_hole_percent", "L2 in hole", "%", 2, "lower"),
    _Column("l2_percent", "L2", "%", 2, "lower"),
    _Column("psnr_hole", "PSNR in hole", "dB", 2, "higher"),
    _Column("psnr", "PSNR", "dB", 2, "higher"),
    _Column("ssim", "SSIM", "", 3, "higher"),
    _Column("tv_percent", "TV", "%", 2, "truth"),
    _Column("fid", "FID", "", 2, "lower"),
    _Column("lpips_alex", "LPIPS", "AlexNet", 3, "lower"),
)
_HINTS = {"lower": "lower is better", "higher": "higher is better", "truth": "closer to the truth is better", None: ""}


def comparison_table(page: Page) -> Table:
    """Build the table of all rows by all metrics; the rows of a kind are sorted by hole L1."""
    columns = _columns_of(page.rows)
    best = {
        column: _best([row.metrics.get(column.name) for row in page.rows], column, page.tv_truth) for column in columns
    }
    footnotes: list[str] = []
    rows = [
        (row, [_cell(row.metrics.get(column.name), column, best[column], footnotes) for column in columns])
        for row in sort_rows(page.rows)
    ]
    return Table([_heading(column, page) for column in columns], rows, footnotes)


def bin_table(rows: Sequence[Row], bins: Sequence[tuple[str, int]]) -> Table:
    """Build the table of hole L1, with PSNR beneath it, in one column per bin.

    rows: in the order of the table.
    bins: (name, number of pairs).
    """
    l1 = next(column for column in _COLUMNS if column.name == REFERENCE_METRIC)
    best = {name: _best([row.by_bin.get(name, {}).get(l1.name) for row in rows], l1, None) for name, _ in bins}
    footnotes: list[str] = []

    def cell(name: str, metrics: Mapping[str, Metric]) -> Cell:
        psnr = metrics.get("psnr")
        beneath = f"{psnr.mean:.1f} dB" if isinstance(psnr, Value) else ""
        return _cell(metrics.get(l1.name), l1, best[name], footnotes)._replace(beneath=beneath)

    cells = [(row, [cell(name, row.by_bin.get(name, {})) for name, _ in bins]) for row in rows]
    return Table([Heading(name, f"N = {count:,}", "") for name, count in bins], cells, footnotes)


def _columns_of(rows: Iterable[Row]) -> list[_Column]:
    """Return a column for every metric that some row has: known ones in their order, then others as they come."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    known = {column.name for column in _COLUMNS}
    return [c for c in _COLUMNS if c.name in names] + [_Column(name, name) for name in names if name not in known]


def _heading(column: _Column, page: Page) -> Heading:
    unit = column.unit
    if column.name == "tv_percent" and page.tv_truth is not None:
        unit = f"{unit}, truth {page.tv_truth:.{column.digits}f}"
    if column.name == "fid" and page.fid_images is not None:
        unit = f"N = {page.fid_images:,}"
    return Heading(column.title, unit, _HINTS[column.better])


def _best(metrics: Iterable[Metric | None], column: _Column, truth: float | None) -> str | None:
    """Return the best number as text. All cells with this text are marked as best, so that equal texts look equal.

    Returns None where no number can be best.
    """
    means = [metric.mean for metric in metrics if isinstance(metric, Value) and math.isfinite(metric.mean)]
    distance = {
        "lower": lambda mean: mean,
        "higher": lambda mean: -mean,
        "truth": None if truth is None else (lambda mean: abs(mean - truth)),
        None: None,
    }[column.better]
    return f"{min(means, key=distance):.{column.digits}f}" if means and distance else None


def _cell(metric: Metric | None, column: _Column, best: str | None, footnotes: list[str]) -> Cell:
    """Show one metric. footnotes: receives the reason of a missing metric."""
    if metric is None:
        return Cell("–")
    if isinstance(metric, Missing):
        if metric.reason not in footnotes:
            footnotes.append(metric.reason)
        return Cell("–", footnote=footnotes.index(metric.reason) + 1)
    text = f"{metric.mean:.{column.digits}f}"
    return Cell(text, _interval(metric, column.digits), text == best)


def _interval(value: Value, digits: int) -> str:
    if value.low is None or value.high is None:
        return ""
    return f"{value.low:.{digits}f} – {value.high:.{digits}f}"
