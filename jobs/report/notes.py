"""Facts about the results that a reader needs to judge the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jobs.evaluation.metrics.value import Metric, Value
from jobs.evaluation.results import OVERALL, Summary

_SHOWN_PAIRS = 5


def describe_results(summaries: Iterable[Summary]) -> list[str]:
    """Return a sentence for each row that has not all pairs, equals the truth somewhere, or predicts edges."""
    return [note for summary in summaries for note in _notes(summary)]


def _notes(summary: Summary) -> Iterator[str]:
    for row, pairs in summary.over_limit.items():
        names = [f"{key} {bin_name}" for key, bin_name in pairs[:_SHOWN_PAIRS]]
        more = [f"and {len(pairs) - len(names)} more"] if len(pairs) > len(names) else []
        yield (
            f"{row} did not fill {_count(len(pairs))} in time, and its figures are without them: "
            f"{', '.join([*names, *more])}. Another machine may fill them."
        )
    for row, groups in summary.rows.items():
        yield from _notes_of_row(row, groups[OVERALL].pairs, groups[OVERALL].metrics)


def _notes_of_row(row: str, pairs: int, metrics: Mapping[str, Metric]) -> Iterator[str]:
    exact, edges = metrics.get("psnr_exact"), metrics.get("edge_recall")
    if isinstance(exact, Value) and exact.mean:
        yield f"{row} fills {_count(round(exact.mean * pairs))} exactly as the truth; their PSNR counts as 100 dB."
    if isinstance(edges, Value):
        having = edges.pairs or pairs
        yield (
            f"Edge precision and recall of {row} are means over {_count(having)}; "
            f"the holes of {pairs - having:,} others hide no edge."
        )


def _count(pairs: int) -> str:
    return f"{pairs:,} pair{'' if pairs == 1 else 's'}"
