"""`configure`: write the list of generators into params.yaml."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from jobs.generators import card, names
from pipeline.params import PARAMS_PATH, read_params


def run(generators: str, preset: str, path: Path = PARAMS_PATH) -> str:
    """Replace the block `generators` of params.yaml, and keep all other lines.

    generators: "all", or names with commas between.
    preset: "demo" or "paper", for all of them.
    path: of params.yaml, which must be valid.
    Returns what was written, as text.
    Raises UserError for a name that is no generator.
    """
    size = read_params(path).ingest.size
    chosen = names() if generators == "all" else tuple(generators.split(","))
    block = {name: _entry(name, preset, size) for name in chosen}
    yaml = YAML()
    yaml.width = 120
    tree = yaml.load(path.read_text(encoding="utf-8"))
    tree["generators"] = block
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    return "\n".join(f"{path.name}: generators.{name}: {values}" for name, values in block.items())


def _entry(name: str, preset: str, size: int) -> dict[str, Any]:
    config = card(name).Config
    sized = {"image_size": size} if "image_size" in {field.name for field in fields(config)} else {}
    return {"preset": preset, **sized}


VERB = {
    "help": "write the list of generators into params.yaml",
    "example": "configure --generators all",
    "arguments": {
        "--generators": {"required": True, "help": '"all", or names with commas between'},
        "--preset": {"choices": ["demo", "paper"], "default": "demo", "help": "their values (default: demo)"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the block, and print what was written."""
    print(run(arguments.generators, arguments.preset))
    return 0
