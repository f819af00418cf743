"""Write the block `generators` of params.yaml."""

from __future__ import annotations

import io
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from files.durable import write_durably
from jobs.generators import card, names
from pipeline.params import PARAMS_PATH, read_params


def run(generators: str, preset: str, path: Path = PARAMS_PATH) -> str:
    """Replace the block `generators` of params.yaml, and keep all other lines.

    generators: "all", or names with commas between.
    preset: "demo" or "paper", for all of them.
    path: params.yaml, which must be valid.
    Returns a line per generator.
    Raises UserError for a name that is no generator.
    """
    size = read_params(path).ingest.size
    chosen = names() if generators == "all" else tuple(generators.split(","))
    yaml = YAML()
    yaml.width = 120
    tree = yaml.load(path.read_text(encoding="utf-8"))
    tree["generators"] = {name: generator_values(name, preset, size) for name in chosen}
    write_durably(path, dump_yaml(tree, yaml))
    return "\n".join(f"{path.name}: generators.{name} has the values of its preset {preset}" for name in chosen)


def generator_values(name: str, preset: str, size: int | str) -> dict[str, Any]:
    """Return every value of a generator's preset as plain data.

    size: value of `image_size` for a generator whose network fixes the size of its images.
    """
    config = card(name).Config
    values = {key: _plain(value) for key, value in asdict(config.demo() if preset == "demo" else config()).items()}
    return values | ({"image_size": size} if "image_size" in values else {})


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def dump_yaml(tree: Any, yaml: YAML | None = None) -> bytes:
    """Return a tree as the text of a YAML file, in UTF-8."""
    buffer = io.BytesIO()
    (yaml or YAML()).dump(tree, buffer)
    return buffer.getvalue()


VERB = {
    "help": "write the list of generators and their values into params.yaml",
    "example": "configure --generators all",
    "arguments": {
        "--generators": {"required": True, "help": '"all", or names with commas between'},
        "--preset": {"choices": ["demo", "paper"], "default": "demo", "help": "their values (default: demo)"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the block and print a line per generator."""
    print(run(arguments.generators, arguments.preset))
    return 0
