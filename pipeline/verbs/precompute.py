"""Run the stage that makes one kind of column from the images."""

from __future__ import annotations

import importlib
from argparse import Namespace

from pipeline.inputs import StageInputs
from pipeline.lineage.records import write_record
from pipeline.params import Params
from pipeline.verbosity import say

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
    if arguments.column == "semantics":
        _make_labels(params)
    else:
        _run(arguments.column, params)
    return 0


def _run(column: str, params: Params) -> None:
    importlib.import_module(f"pipeline.stages.{column}").run(params)


def _make_labels(params: Params) -> None:
    """Make label maps if a generator reads them."""
    from pipeline.labels import find_readers, remove_label_maps, write_label_files

    inputs = StageInputs.read("semantics")
    readers = find_readers(params.generators)
    if readers:
        _run("semantics", params)
    else:
        remove_label_maps()
        say("semantics: none of the generators reads label maps, so none are made")
    write_label_files(params.generators, readers)
    write_record(inputs)
