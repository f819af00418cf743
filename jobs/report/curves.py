"""Losses by phase as the curves of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from jobs.report.data import Curves

Phases = dict[str, dict[str, dict[int, float]]]
"""Phase -> term -> step -> loss."""


def make_curves(generator: str, phases: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Iterator[Curves]:
    """Yield the curves of every phase in the order of training.

    generator: name in the titles of the charts.
    phases: see `Phases`.
    """
    for phase, terms in sorted(phases.items(), key=lambda item: min(min(points) for points in item[1].values())):
        steps = sorted(set().union(*terms.values()))  # some updates are not due at every step
        series = {term: [points.get(step, math.nan) for step in steps] for term, points in terms.items()}
        yield Curves(generator=generator, phase=phase, steps=steps, series=series)
