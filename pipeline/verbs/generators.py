"""List the generators with their papers."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from jobs.generators import card, names
from pipeline.tables import align_left

_HEAD = ("generator", "year", "needs", "parameters at paper scale", "paper")


def render(*, as_json: bool) -> str:
    """Return a line per generator: short name, year, needs, parameters of its networks at paper scale, paper."""
    generators = [_describe(name) for name in names()]
    if as_json:
        return json.dumps(generators, indent=2)
    return "\n".join(align_left([_HEAD, *map(_cells, generators)]))


def _describe(name: str) -> dict[str, Any]:
    paper = card(name)
    return {
        "name": name,
        "year": paper.YEAR,
        "paper": paper.PAPER,
        "needs": list(paper.NEEDS),
        "parameters": paper.PARAMETERS,
    }


def _cells(generator: dict[str, Any]) -> tuple[str, ...]:
    return (
        generator["name"],
        str(generator["year"]),
        ", ".join(generator["needs"]) or "-",
        ", ".join(f"{network} {count:,}" for network, count in generator["parameters"].items()),
        generator["paper"],
    )


VERB = {
    "help": "list the generators with their papers",
    "example": "generators --json",
    "arguments": {"--json": {"action": "store_true", "help": "print JSON"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the list."""
    print(render(as_json=arguments.json))
    return 0
