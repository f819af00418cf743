"""The sentences at the top of the page: the best generator, the gain of training, which rows beat the mean colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL
from jobs.report.data import REFERENCE, REFERENCE_METRIC, Kind, Row, sort_rows

Verdict = Literal["better", "unclear", "worse"]

_NOUNS: dict[Kind, str] = {
    "generator": "trained generators",
    "registered": "registered versions",
    "external": "other programs",
    "untrained": "untrained networks",
    "baseline": "other baselines",
}


def summarise_rows(rows: Sequence[Row], comparisons: Sequence[Comparison] = ()) -> list[str]:
    """Tell which generator is best, and which rows have a smaller hole L1 than the mean colour, by kind of rows.

    comparisons: of any two rows; they decide whether the lead of the best generator is significant.
    """
    return [
        *_name_best(rows, comparisons),
        *_compare_without_training(rows, comparisons),
        *_compare_with_reference(rows),
    ]


def _name_best(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield one sentence: which trained generator has the smallest hole L1, and whether others are significantly worse.

    Nothing is yielded unless a generator has a number.
    """
    trained = _sort_by_error(rows, "generator")
    if not trained:
        return
    best, *others = trained
    if not others:
        yield f"The trained generator {best.name} leaves an error of {_hole_l1(best):.2f} % in holes."
        return
    worse = {
        {one.first: one.second, one.second: one.first}[best.id]
        for one in comparisons
        if (one.metric, one.group, one.better) == (REFERENCE_METRIC, OVERALL, best.id)
    }
    level = [row.name for row in others if row.id not in worse]
    lead = f"; not significantly worse: {', '.join(level)}" if level else ", significantly less than every other"
    known = lead if comparisons else ""
    yield f"Of the trained generators, {best.name} leaves the smallest error in holes, {_hole_l1(best):.2f} %{known}."


def _compare_without_training(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield one sentence: the smallest hole L1 without training, and whether the best generator's differs from it.

    Nothing is yielded unless the two rows are compared.
    """
    trained, rivals = _sort_by_error(rows, "generator"), _sort_by_error(rows, "untrained", "baseline")
    if not trained or not rivals:
        return
    best, rival = trained[0], rivals[0]
    for one in comparisons:
        is_wanted = (one.metric, one.group, {one.first, one.second}) == (REFERENCE_METRIC, OVERALL, {best.id, rival.id})
        if is_wanted:
            words = {None: "not significantly different from", best.id: "significantly more than"}
            name = f"{rival.name} before its training" if rival.kind == "untrained" else rival.name
            yield (
                f"Of the rows without training, {name} leaves the smallest error in holes, {_hole_l1(rival):.2f} %, "
                f"{words.get(one.better, 'significantly less than')} that of {best.name}."
            )


def _sort_by_error(rows: Sequence[Row], *kinds: Kind) -> list[Row]:
    """Return the rows of some kinds that have a hole L1, the smallest first."""
    return sorted((row for row in rows if row.kind in kinds and _hole_l1(row) is not None), key=_hole_l1)


def _compare_with_reference(rows: Sequence[Row]) -> list[str]:
    reference = next((row for row in rows if row.name == REFERENCE and row.kind == "baseline"), None)
    level = reference and reference.metrics.get(REFERENCE_METRIC)
    if not isinstance(level, Value):
        return ["Filling with the mean colour was not scored, so no row can be compared with it."]
    paragraphs = []
    for kind, noun in _NOUNS.items():
        members = [row for row in sort_rows(rows) if row.kind == kind and row is not reference]
        verdicts = [(row.name, verdict) for row in members if (verdict := _verdict(row, level))]
        if verdicts:
            paragraphs.append(_paragraph(verdicts, noun))
    opening = f"Filling with the mean colour of visible pixels leaves an error of {level.mean:.2f} % (L1 in the hole)."
    return [" ".join([opening, *paragraphs])]


def _paragraph(verdicts: Sequence[tuple[str, Verdict]], noun: str) -> str:
    """Return such as: 2 of 3 trained generators beat it: a, b. Not better: c."""
    names: dict[Verdict, list[str]] = {"better": [], "unclear": [], "worse": []}
    for name, verdict in verdicts:
        names[verdict].append(name)
    if len(names["worse"]) == len(verdicts):
        return f"None of {len(verdicts)} {noun} beats it."
    count = f"{len(names['better']) or 'None'} of {len(verdicts)} {noun}"
    sentences = [f"{count} beats it" if len(names["better"]) < 2 else f"{count} beat it"]
    sentences[0] += f": {', '.join(names['better'])}." if names["better"] else "."
    for verdict, words in (("unclear", "No clear difference"), ("worse", "Not better")):
        if names[verdict]:
            sentences.append(f"{words}: {', '.join(names[verdict])}.")
    return " ".join(sentences)


def _verdict(row: Row, level: Value) -> Verdict | None:
    """Compare a row's hole L1 with the reference's; None if the row has none."""
    mean = _hole_l1(row)
    if mean is None:
        return None
    difference = row.against_reference or Value(mean - level.mean)
    low = difference.mean if difference.low is None else difference.low
    high = difference.mean if difference.high is None else difference.high
    if high < 0:
        return "better"
    return "worse" if low > 0 else "unclear"


def _hole_l1(row: Row) -> float | None:
    """Return the mean hole L1 of a row; None without a finite one."""
    value = row.metrics.get(REFERENCE_METRIC)
    return value.mean if isinstance(value, Value) and math.isfinite(value.mean) else None
