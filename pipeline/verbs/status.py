"""Show what runs, waits, has failed and is finished, here and on the machines that share the storage."""

from __future__ import annotations

from argparse import Namespace

from pipeline.inputs import read_values
from pipeline.status.overview import Overview, read_overview
from pipeline.status.rendering import render_json, render_text


def run() -> Overview:
    """Read the state of all stages and trainings. Nothing is changed, and no library of trainings is imported.

    Raises ParamsError if params.yaml cannot be read.
    """
    tree = read_values()
    if not isinstance(tree, dict):
        from pipeline.params import read_tree  # only for its message: its imports take longer than all the rest

        tree = read_tree()
    return read_overview(tree)


VERB = {
    "help": "show what runs, waits, failed and finished, with the last figures and the next command",
    "example": "status",
    "arguments": {"--json": {"action": "store_true", "help": "print JSON"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the overview."""
    overview = run()
    print(render_json(overview) if arguments.json else render_text(overview))
    return 0
