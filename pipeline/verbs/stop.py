"""Ask running trainings to save and stop: by hand, or from the hook of a node that will be taken away."""

from __future__ import annotations

from argparse import Namespace

from jobs.runs.experiment import holder
from jobs.runs.stopping import stop_mark
from pipeline.params import Params


def run(params: Params, generator: str | None) -> str:
    """Ask trainings in `cluster.storage` to save a checkpoint and stop after their next step.

    generator: whose trainings to ask; None asks all.
    Returns a line per training that was asked.
    """
    root = params.cluster.storage_folder
    lines = []
    for lock in sorted(root.glob(f"{generator or '*'}/*/lock")):
        folder = lock.parent
        process = holder(folder)
        if process:
            stop_mark(folder).touch()
            lines.append(f"{folder.parent.name}: {process} saves and stops after its next step")
    return "\n".join(lines) or f"nothing is training in {root}"


VERB = {
    "help": "ask running trainings to save and stop; they exit with 75",
    "example": "stop edge_connect",
    "arguments": {"generator": {"nargs": "?", "help": "a name that params.yaml lists (default: all of them)"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Ask, and print who was asked."""
    print(run(params, arguments.generator))
    return 0
