"""Run the stage that makes one kind of column from the images."""

from __future__ import annotations

import importlib
from argparse import Namespace

from pipeline.params import Params

VERB = {
    "help": "stage: columns made from the images",
    "example": "precompute edges",
    "arguments": {
        "column": {
            "choices": ["edges", "semantics", "masks"],
            "help": "edges or labels of every split, or masks",
        }
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage `arguments.column`. Only that stage is imported."""
    importlib.import_module(f"pipeline.stages.{arguments.column}").run(params)
    return 0
