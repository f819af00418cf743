"""Quality of the rows against their cost. The page has only costs that are the same in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jobs.evaluation.metrics.value import Value
from jobs.report.data import REFERENCE_METRIC, Page, Row, sort_rows


class CostLine(NamedTuple):
    """One generator: its quality and its cost, as texts."""

    name: str
    quality: str
    images: str
    parameters: str
    trained_parameters: str


def cost_lines(page: Page) -> list[CostLine]:
    """Return a line for each row with a cost, the best hole L1 first."""
    return [
        CostLine(
            row.name,
            f"{value.mean:.2f}",
            f"{row.cost.images_seen:,}",
            f"{row.cost.parameters:,}",
            f"{row.cost.trained_parameters:,}",
        )
        for row in sort_rows(page.rows)
        if row.cost is not None and isinstance(value := row.metrics.get(REFERENCE_METRIC), Value)
    ]


def quality_against_cost(
    rows: Sequence[Row], fills: Mapping[str, Mapping[str, Any]], device_hours: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return each row's quality beside all its costs as plain data, for charts.

    fills: row -> the content of costs/<row>.json.
    device_hours: row -> hours of training times processes, of those that the tracking server knows.
    """
    return [_quality_and_cost(row, fills.get(row.id, {}), device_hours.get(row.id)) for row in sort_rows(rows)]


def _quality_and_cost(row: Row, fill: Mapping[str, Any], hours: float | None) -> dict[str, Any]:
    metrics = {name: metric.mean for name, metric in row.metrics.items() if isinstance(metric, Value)}
    seconds = fill.get("seconds_per_image")
    return {
        "row": row.id,
        "kind": row.kind,
        **metrics,
        "images_seen": row.cost and row.cost.images_seen,
        "parameters": row.cost and row.cost.parameters,
        "device_hours": hours,
        "milliseconds_per_image": None if seconds is None else 1000 * seconds,
        "peak_device_bytes": fill.get("peak_device_bytes"),
    }
