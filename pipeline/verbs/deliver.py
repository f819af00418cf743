"""Upload finished trainings that the tracking server has not received: their runs and registered versions."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from jobs.tracking.delivery import Delivery, deliver_waiting
from pipeline.layout import undelivered_folder
from pipeline.params import Params
from pipeline.verbosity import say


def run(params: Params) -> list[Delivery]:
    """Deliver every waiting training, oldest first. One that cannot be delivered keeps waiting and has a `problem`."""
    return deliver_waiting(undelivered_folder(params.cluster.storage_folder))


def render(deliveries: Sequence[Delivery], *, as_json: bool) -> str:
    """Return a line per training, or all as JSON."""
    if as_json:
        return json.dumps([asdict(delivery) for delivery in deliveries], indent=2)
    return "\n".join(_line(delivery) for delivery in deliveries) or "nothing waits to be delivered"


def _line(delivery: Delivery) -> str:
    if delivery.problem and delivery.version:
        registered = f"registered as version {delivery.version}"
        return f"{delivery.run}: {registered}; some files wait in {delivery.folder} ({delivery.problem})"
    if delivery.problem:
        return f"{delivery.run}: still waits in {delivery.folder} ({delivery.problem})"
    return f"{delivery.run}: delivered" + (f", registered as version {delivery.version}" if delivery.version else "")


VERB = {
    "help": "upload finished trainings that the tracking server has not received",
    "example": "deliver",
    "arguments": {"--json": {"action": "store_true", "help": "print JSON"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Deliver the waiting trainings and print the outcome of each. Returns 1 if one still waits."""
    deliveries = run(params)
    has_problem = any(delivery.problem for delivery in deliveries)
    tell = print if arguments.json or has_problem else say
    tell(render(deliveries, as_json=arguments.json))
    return int(has_problem)
