"""Ask running trainings to save and stop: by hand, or from the hook of a node that will be taken away."""

from __future__ import annotations

from argparse import Namespace

from jobs.runs.claim import find_holder
from jobs.runs.folder import list_run_folders
from pipeline.params import Params
from pipeline.verbosity import say


def run(params: Params, generator: str | None) -> str:
    """Ask trainings in `cluster.storage` to save a checkpoint and stop after their next step.

    generator: whose trainings to ask; None asks all.
    Returns a line per training that was asked.
    """
    root = params.cluster.storage_folder
    lines = []
    for folder in list_run_folders(root, generator):
        if holder := find_holder(folder):
            folder.stop_request.touch()
            lines.append(f"{folder.path.parent.name}: {holder} saves and stops after its next step")
    return "\n".join(lines) or f"nothing is training in {root}"


VERB = {
    "help": "ask running trainings to save and stop; they exit with 75",
    "example": "stop edge_connect",
    "arguments": {
        "generator": {
            "nargs": "?",
            "help": "a name that params.yaml lists (default: all of them)",
            "completes": "generators",
        }
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Ask the trainings to stop, and print which were asked."""
    say(run(params, arguments.generator))
    return 0
