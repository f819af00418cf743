"""Print where the report, the tracking database and the registered models are."""

from __future__ import annotations

import json
from argparse import Namespace

from files.checkout import ROOT
from jobs.tracking.address import browse_hint, display_address, tracking_uri
from pipeline.layout import REPORT
from pipeline.tables import align_left


def render(*, as_json: bool) -> str:
    """Return the paths of the report and of the tracking database, and the command that shows registered models."""
    uri = tracking_uri()
    address = display_address(uri)
    places = {
        "report": str(ROOT / REPORT),
        "tracking": address,
        "models": [f"models:/inpaint-{path.name}@candidate" for path in sorted((ROOT / "models").glob("*"))],
        "browse": browse_hint(uri),
    }
    if as_json:
        return json.dumps(places, indent=2)
    rows = [("report", places["report"]), ("tracking database", address), ("browse it", places["browse"])]
    return "\n".join(align_left([*rows, *(("registered model", model) for model in places["models"])]))


VERB = {
    "help": "print where the report, the tracking database and the registered models are",
    "example": "where",
    "arguments": {"--json": {"action": "store_true", "help": "print JSON"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the places."""
    print(render(as_json=arguments.json))
    return 0
