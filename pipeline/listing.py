"""What there is: generators with their papers, data sets with what they need on disk, and where a run's results lie."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from datasets.sources import SOURCES
from jobs.generators import card, names
from pipeline.layout import REPORT

ROOT = Path(__file__).resolve().parent.parent


def generators(*, as_json: bool) -> str:
    """A line per generator: short name, year, needs, paper, and the parameters of its networks at paper scale."""
    rows = [
        {
            "name": name,
            "year": card(name).YEAR,
            "paper": card(name).PAPER,
            "needs": list(card(name).NEEDS),
            "parameters": card(name).PARAMETERS,
        }
        for name in names()
    ]
    if as_json:
        return json.dumps(rows, indent=2)
    lines = [
        (
            row["name"],
            str(row["year"]),
            ", ".join(row["needs"]) or "-",
            ", ".join(f"{network} {count:,}" for network, count in row["parameters"].items()),
            row["paper"],
        )
        for row in rows
    ]
    return _table(lines, ("generator", "year", "needs", "parameters at paper scale", "paper"))


def datasets(*, as_json: bool) -> str:
    """A line per data set: name, licence, and what the user must have on disk."""
    cards = [source.card for source in SOURCES.values()]
    if as_json:
        return json.dumps([asdict(each) for each in cards], indent=2)
    return _table([(each.name, each.licence, each.layout) for each in cards], ("data set", "licence", "on disk"))


def where(*, as_json: bool) -> str:
    """Paths of the report and of the tracking database, and the command that shows registered models."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT / 'mlflow.db'}"
    places = {
        "report": str(ROOT / REPORT),
        "tracking": uri,
        "models": [f"models:/inpaint-{path.name}@candidate" for path in sorted((ROOT / "models").glob("*"))],
        "browse": f"mlflow ui --backend-store-uri {uri}",
    }
    if as_json:
        return json.dumps(places, indent=2)
    rows = [("report", places["report"]), ("tracking database", uri), ("browse it", places["browse"])]
    return _table([*rows, *(("registered model", model) for model in places["models"])])


def _table(rows: list[tuple[str, ...]], head: tuple[str, ...] | None = None) -> str:
    lines = [head, *rows] if head else rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in lines)
