"""Join the quality of every row with what it cost, for charts of one over the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.evaluation.results import write_json
from jobs.recipe.contract import is_discriminator
from jobs.report.costs import quality_against_cost
from jobs.report.data import Cost, Row
from jobs.runs.receipt import Receipt
from jobs.tracking.mlflow_registry import newest_version
from jobs.tracking.mlflow_runs import run_seconds
from pipeline.layout import GROUP_ROWS, QUALITY_AND_COST, costs_file


def training_cost(receipt: Receipt) -> Cost:
    """Return the costs of a training that its receipt states."""
    counts = receipt.parameters.items()
    return Cost(
        images_seen=receipt.samples_seen,
        parameters=sum(count for name, count in counts if not is_discriminator(name)),
        trained_parameters=sum(count for _, count in counts),
    )


def write_quality_and_cost(rows: Sequence[Row], receipts: Mapping[str, Receipt]) -> None:
    """Write costs/quality.json: each row's figures with images seen, parameters, device-hours, time and memory.

    The file is beside the stages' outputs, not in them: times differ from run to run. A cost that is not known is null.
    """
    fills: dict[str, Any] = {}
    for name in (*receipts, *GROUP_ROWS):
        path = costs_file(name)
        fills |= json.loads(path.read_bytes()) if path.exists() else {}
    hours = {name: hours for name, receipt in receipts.items() if (hours := _device_hours(name, receipt)) is not None}
    write_json(QUALITY_AND_COST, quality_against_cost(rows, fills, hours))


def _device_hours(generator: str, receipt: Receipt) -> float | None:
    """Return the duration of a training times its processes, as the tracking server knows it; None if it does not."""
    version = {"identity": receipt.experiment, "weights_sha256": receipt.weights_sha256}
    try:
        found = newest_version(f"inpaint-{generator}", version)
        seconds = run_seconds(found.run_id) if found is not None else None
    except Exception:  # every client and store raises its own kinds; the report warns of a server that does not answer
        return None
    return None if seconds is None else seconds / 3600 * receipt.world_sizes[-1]
