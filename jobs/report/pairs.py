"""The table that says which of two rows is better, over all pairs and per bin."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.results import OVERALL
from jobs.report.data import REFERENCE_METRIC, Page, sort_rows


class PairCell(NamedTuple):
    """The comparison of two rows over one group.

    winner: name of the better row, or "" if the difference is not significant.
    difference: of the first row minus the second, with its interval; "–" without a pair of both.
    """

    winner: str
    difference: str


class PairTable(NamedTuple):
    """One line for any two rows: their names, and a cell for each heading."""

    headings: list[str]
    lines: list[tuple[str, str, list[PairCell]]]


def pair_table(page: Page) -> PairTable | None:
    """Build the table of hole L1 for any two rows but untrained and guided ones; None without comparisons."""
    found = {(one.first, one.second, one.group): one for one in page.comparisons if one.metric == REFERENCE_METRIC}
    names = {row.id: row.name for row in sort_rows(page.rows) if row.kind not in ("untrained", "guided")}
    groups = [OVERALL, *(name for name, _ in page.bins)]
    lines = []
    for pair in combinations(names, 2):
        first, second = pair if (*pair, OVERALL) in found else pair[::-1]
        if (first, second, OVERALL) in found:
            cells = [_cell(found.get((first, second, group)), names) for group in groups]
            lines.append((names[first], names[second], cells))
    return PairTable(["all", *groups[1:]], lines) if lines else None


def _cell(comparison: Comparison | None, names: dict[str, str]) -> PairCell:
    if comparison is None:
        return PairCell("", "–")
    value = comparison.difference
    interval = "" if value.low is None else f" ({value.low:+.2f} – {value.high:+.2f})"
    text = f"{value.mean:+.2f}{interval}".replace("-", "−")
    return PairCell(names[comparison.better] if comparison.better else "", text)
