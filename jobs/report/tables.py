"""The tables of the page: all rows by all metrics, and hole L1 by bin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jobs.evaluation.catalogue import BY_NAME, METRICS, SET_METRICS, MetricInfo
from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.evaluation.results import OVERALL
from jobs.report.data import REFERENCE_METRIC, Page, Row, sort_rows


class Cell(NamedTuple):
    """The content of one cell.

    text: a number, or a dash.
    beneath: its interval, or a second number.
    is_level: whether it is not the best, and not significantly worse than it.
    footnote: number of the footnote with the reason why there is no value.
    """

    text: str
    beneath: str = ""
    is_best: bool = False
    is_level: bool = False
    footnote: int | None = None


class Heading(NamedTuple):
    """The heading of one column. hint: tells which values are better."""

    title: str
    unit: str
    hint: str
    is_high_best: bool = False


class Table(NamedTuple):
    """A table of methods: its headings, each row with one cell per heading, and its footnotes."""

    headings: list[Heading]
    rows: list[tuple[Row, list[Cell]]]
    footnotes: list[str]


_HIDDEN = ("psnr_exact", "mae_ratio")  # a count, and a number of use only beside published ones
_HINTS = {"lower": "lower is better", "higher": "higher is better", "truth": "closer to the truth is better", None: ""}


def comparison_table(page: Page) -> Table:
    """Build the table of all rows by all metrics that some row has; the rows of a kind are sorted by hole L1."""
    columns = [_column_of(name) for name in _shown_names(page.rows)]
    level = _Level(page.comparisons)
    best = {
        column: _best({row.id: row.metrics.get(column.name) for row in page.rows}, column, page.tv_truth)
        for column in columns
    }
    footnotes: list[str] = []

    def cell(row: Row, column: MetricInfo) -> Cell:
        cell = _cell(row.metrics.get(column.name), column, best[column], footnotes)
        return cell._replace(is_level=not cell.is_best and level.has(row.id, best[column], column.name, OVERALL))

    rows = [(row, [cell(row, column) for column in columns]) for row in sort_rows(page.rows)]
    return Table([_heading(column, page) for column in columns], rows, footnotes)


def bin_table(rows: Sequence[Row], page: Page) -> Table:
    """Build the table of hole L1, with PSNR beneath it, in one column per bin.

    rows: in the order of the table.
    """
    l1 = _column_of(REFERENCE_METRIC)
    level = _Level(page.comparisons)
    best = {
        name: _best({row.id: row.by_bin.get(name, {}).get(l1.name) for row in rows}, l1, None) for name, _ in page.bins
    }
    footnotes: list[str] = []

    def cell(row: Row, name: str) -> Cell:
        metrics = row.by_bin.get(name, {})
        psnr = metrics.get("psnr")
        beneath = f"{psnr.mean:.1f} dB" if isinstance(psnr, Value) else ""
        cell = _cell(metrics.get(l1.name), l1, best[name], footnotes)
        is_level = not cell.is_best and level.has(row.id, best[name], l1.name, name)
        return cell._replace(beneath=beneath, is_level=is_level)

    cells = [(row, [cell(row, name) for name, _ in page.bins]) for row in rows]
    return Table([Heading(name, f"N = {count:,}", "") for name, count in page.bins], cells, footnotes)


def absent_columns(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why no row has some metrics, such as "FID, KID: not computed: needs ..."."""
    shown = set(_shown_names(rows))
    titles: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, metric in row.metrics.items():
            if name not in shown and isinstance(metric, Missing) and name not in _HIDDEN:
                column = _column_of(name)
                title = f"{column.title} ({column.unit})" if column.title == "LPIPS" else column.title
                titles.setdefault(metric.reason, {})[title] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in titles.items()]


class _Best(NamedTuple):
    """The best value of a column, as text, and the rows that have it."""

    text: str
    rows: tuple[str, ...]


class _Level:
    """Look up which rows do not differ significantly."""

    def __init__(self, comparisons: Iterable[Comparison]) -> None:
        self._unclear = {
            (one.metric, one.group, frozenset((one.first, one.second))) for one in comparisons if one.better is None
        }

    def has(self, row: str, best: _Best | None, metric: str, group: str) -> bool:
        """Tell whether a row is compared with a best one, and not significantly worse."""
        return best is not None and any(
            (metric, group, frozenset((row, other))) in self._unclear for other in best.rows
        )


def _shown_names(rows: Iterable[Row]) -> list[str]:
    """Return the metrics that some row has a value of: known ones in their order, then others as they come."""
    rows = list(rows)
    having = dict.fromkeys(name for row in rows for name, metric in row.metrics.items() if isinstance(metric, Value))
    for name in _HIDDEN:
        having.pop(name, None)
    known = [metric.name for metric in METRICS if metric.name in having]
    return [*known, *(name for name in having if name not in known)]


def _column_of(name: str) -> MetricInfo:
    return BY_NAME.get(name, MetricInfo(name, name))


def _heading(column: MetricInfo, page: Page) -> Heading:
    unit = column.unit
    if column.name == "tv_percent" and page.tv_truth is not None:
        unit = f"{unit}, truth {page.tv_truth:.{column.digits}f}"
    if column.name in SET_METRICS and page.fid_images is not None:
        unit = f"{unit} N = {page.fid_images:,}".lstrip()
    return Heading(column.title, unit, _HINTS[column.better], column.better == "higher")


def _best(metrics: Mapping[str, Metric | None], column: MetricInfo, truth: float | None) -> _Best | None:
    """Return the best number as text. All cells with this text are marked as best, so that equal texts look equal.

    metrics: row -> value.
    Returns None where no number can be best.
    """
    means = {row: metric.mean for row, metric in metrics.items() if isinstance(metric, Value)}
    means = {row: mean for row, mean in means.items() if math.isfinite(mean)}
    distance = {
        "lower": lambda mean: mean,
        "higher": lambda mean: -mean,
        "truth": None if truth is None else (lambda mean: abs(mean - truth)),
        None: None,
    }[column.better]
    if not means or distance is None:
        return None
    texts = {row: f"{mean:.{column.digits}f}" for row, mean in means.items()}
    text = texts[min(means, key=lambda row: distance(means[row]))]
    return _Best(text, tuple(row for row, its in texts.items() if its == text))


def _cell(metric: Metric | None, column: MetricInfo, best: _Best | None, footnotes: list[str]) -> Cell:
    """Show one metric. footnotes: receives the reason of a missing metric."""
    if metric is None:
        return Cell("–")
    if isinstance(metric, Missing):
        if metric.reason not in footnotes:
            footnotes.append(metric.reason)
        return Cell("–", footnote=footnotes.index(metric.reason) + 1)
    text = f"{metric.mean:.{column.digits}f}"
    return Cell(text, _interval(metric, column.digits), best is not None and text == best.text)


def _interval(value: Value, digits: int) -> str:
    if value.low is None or value.high is None:
        return ""
    return f"{value.low:.{digits}f} – {value.high:.{digits}f}"
