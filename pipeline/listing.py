"""What there is: generators with their papers, data sets with what they need on disk, and where a run's results lie."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datasets.sources import SOURCES, Source, named
from files.checkout import permanent_checkout
from jobs.generators import card, names
from pipeline.layout import REPORT

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
_HINT = """
Licences are summed up in a few words: the owner's own count.
`python -m pipeline datasets <name>` shows one with its known defects, its options and how to run it."""


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


def datasets(name: str | None = None, *, as_json: bool) -> str:
    """A few lines per data set, 120 columns wide; or, by its name, the whole card of one. JSON holds all of each card.

    Raises ValueError, with the nearest name, if there is no such data set.
    """
    sources = list(SOURCES.values()) if name is None else [named(name)]
    if as_json:
        rows = [asdict(source.card) | {"classes": source.classes, "params": _params(source)} for source in sources]
        return json.dumps(rows if name is None else rows[0], indent=2)
    if name is not None:
        return _columns([("data set", name), *_about(sources[0]), *_details(sources[0])])
    rows = []
    for source in sources:
        rows += [(source.card.name if what == "pictures" else "", what, text) for what, text in _about(source)]
    return f"{_columns(rows)}\n{_HINT}"


def _about(source: type[Source]) -> list[tuple[str, str]]:
    """What everyone must know of a data set."""
    card = source.card
    counts = ", ".join(f"{split} {card.counts[split]:,}" for split in card.splits if split in card.counts)
    may = "may be redistributed" if card.redistributable else "not to be redistributed"
    return [
        ("pictures", counts or "any number"),
        ("labels", card.labels),
        ("licence", f"{card.licence} ({may})"),
        ("on disk", card.layout),
    ]


def _details(source: type[Source]) -> list[tuple[str, str]]:
    """What its user must know too."""
    params = _params(source)
    block = "".join(f"\n  {key}: {'null' if value is None else value}" for key, value in params.items())
    root = f" -S dataset.root={params['root']}" if params["root"] else ""
    rows = [
        ("classes", ", ".join(source.classes)),
        ("known defects", "\n".join(source.card.defects)),
        *(("option", f"{option}\n{meaning}") for option, meaning in source.card.options.items()),
        ("params.yaml", f"dataset:{block}"),
        ("run it", f"dvc exp run -S dataset={source.card.name}{root}"),
    ]
    return [(what, text) for what, text in rows if text]


def _params(source: type[Source]) -> dict[str, object]:
    """The block `dataset` of params.yaml for this data set, options at their defaults."""
    defaults = {field.name: field.default for field in fields(source.Config)}
    root = None if source is SOURCES["photos"] else "/path/to/it"
    return {"name": source.card.name, "root": root} | {option: defaults[option] for option in source.card.options}


def _columns(rows: list[tuple[str, ...]]) -> str:
    """Columns, the last of them wrapped, in lines of at most 120 characters."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0]:
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False, file=io.StringIO())
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def where(*, as_json: bool) -> str:
    """Paths of the report and of the tracking database, and the command that shows registered models."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{permanent_checkout() / 'mlflow.db'}"
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
