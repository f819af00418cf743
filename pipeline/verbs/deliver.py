"""Finished trainings that wait for the tracking server -> their runs and registered versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from jobs.tracking.delivery import Delivery, deliver_waiting
from pipeline.layout import undelivered_folder
from pipeline.params import Params


def run(params: Params) -> list[Delivery]:
    """Deliver all that waits, oldest first; what cannot be delivered says why and stays."""
    return deliver_waiting(undelivered_folder(params.cluster.storage_folder))


def render(deliveries: Sequence[Delivery], *, as_json: bool) -> str:
    """A line per training."""
    if as_json:
        return json.dumps([asdict(delivery) for delivery in deliveries], indent=2)
    return "\n".join(_line(delivery) for delivery in deliveries) or "nothing waits to be delivered"


def _line(delivery: Delivery) -> str:
    if delivery.problem:
        return f"{delivery.run}: still waits in {delivery.folder} ({delivery.problem})"
    return f"{delivery.run}: delivered" + (f", registered as version {delivery.version}" if delivery.version else "")
