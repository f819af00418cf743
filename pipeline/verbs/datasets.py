"""List the data sets with their licences and the files that each needs on disk."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from datasets.sources import SOURCES, Source, named
from pipeline.tables import wrap_last

_HINT = """
Licences are summed up in a few words; only the owner's own text is binding.
`python -m pipeline datasets <name>` shows one with its known defects, its options and how to choose it."""


def render(name: str | None = None, *, as_json: bool) -> str:
    """Return a few lines per data set, at most 120 columns wide.

    name: show this data set alone, with its whole card; None lists all.
    as_json: return every field of the cards as JSON.
    Raises SourceError, with the nearest name, if there is no such data set.
    """
    sources = list(SOURCES.values()) if name is None else [named(name)]
    if as_json:
        cards = [_describe(source) for source in sources]
        return json.dumps(cards if name is None else cards[0], indent=2)
    if name is not None:
        return wrap_last([("data set", name), *_summary(sources[0]), *_details(sources[0])])
    rows = []
    for source in sources:
        rows += [(source.card.name if what == "pictures" else "", what, text) for what, text in _summary(source)]
    return f"{wrap_last(rows)}\n{_HINT}"


def _describe(source: type[Source]) -> dict[str, Any]:
    return asdict(source.card) | {"classes": source.classes, "params": _params(source)}


def _summary(source: type[Source]) -> list[tuple[str, str]]:
    """Return the rows that the list of all data sets shows."""
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
    """Return the further rows that are shown for one data set."""
    params = _params(source)
    root = f" dataset.root={params['root']}" if params["root"] else ""
    rows = [
        ("classes", ", ".join(source.classes)),
        ("known defects", "\n".join(source.card.defects)),
        *(("option", f"{option}\n{meaning}") for option, meaning in source.card.options.items()),
        ("params.yaml", _yaml_block(params)),
        ("choose it", f"python -m pipeline configure dataset={source.card.name}{root}"),
    ]
    return [(what, text) for what, text in rows if text]


def _params(source: type[Source]) -> dict[str, object]:
    """Return the block `dataset` of params.yaml for this data set, with its options at their defaults."""
    defaults = {field.name: field.default for field in fields(source.Config)}
    root = None if source is SOURCES["photos"] else "/path/to/it"
    return {"name": source.card.name, "root": root} | {option: defaults[option] for option in source.card.options}


def _yaml_block(params: Mapping[str, object]) -> str:
    return "dataset:" + "".join(f"\n  {key}: {'null' if value is None else value}" for key, value in params.items())


VERB = {
    "help": "list the data sets and the files that each needs on disk",
    "example": "datasets places2",
    "arguments": {
        "name": {
            "nargs": "?",
            "help": "show this data set alone, with its known defects and options",
            "completes": "data sets",
        },
        "--json": {"action": "store_true", "help": "print JSON"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the list, or one card."""
    print(render(arguments.name, as_json=arguments.json))
    return 0
