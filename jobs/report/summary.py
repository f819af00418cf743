"""The sentences at the top of the page: which rows beat the mean colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from jobs.evaluation.metrics.value import Value
from jobs.report.data import REFERENCE, REFERENCE_METRIC, Kind, Row, sort_rows

Verdict = Literal["better", "unclear", "worse"]

_NOUNS: dict[Kind, str] = {
    "generator": "trained generators",
    "registered": "registered versions",
    "external": "other programs",
    "untrained": "untrained networks",
    "baseline": "other baselines",
}


def summarise_rows(rows: Sequence[Row]) -> list[str]:
    """Tell which rows have a smaller hole L1 than the mean colour, in one paragraph for each kind of rows."""
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
    return [" ".join([opening, *paragraphs[:1]]), *paragraphs[1:]]


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
    value = row.metrics.get(REFERENCE_METRIC)
    if not isinstance(value, Value) or not math.isfinite(value.mean):
        return None
    difference = row.against_reference or Value(value.mean - level.mean)
    low = difference.mean if difference.low is None else difference.low
    high = difference.mean if difference.high is None else difference.high
    if high < 0:
        return "better"
    return "worse" if low > 0 else "unclear"
