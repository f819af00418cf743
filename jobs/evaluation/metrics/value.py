"""The value of a metric: a number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A mean and its 95 % interval. `low` and `high` are None where the interval is unknown."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Missing:
    """The reason why a metric has no value, such as "not computed: needs AlexNet weights"."""

    reason: str


Metric = Value | Missing
