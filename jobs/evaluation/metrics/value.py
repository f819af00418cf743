"""The value of a metric: a number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A mean and its 95 % interval. `low` and `high` are None where the interval is unknown.

    pairs: number of pairs behind it, if it is less than that of the group; None otherwise.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Missing:
    """The reason why a metric has no value, such as "not computed: needs AlexNet weights"."""

    reason: str


Metric = Value | Missing
