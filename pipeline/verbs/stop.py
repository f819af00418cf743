"""Ask running trainings to save and stop: by hand, or from the hook of a node that will be taken away."""

from __future__ import annotations

from jobs.runs.experiment import holder
from jobs.runs.stopping import stop_mark
from pipeline.params import Params


def run(params: Params, generator: str | None) -> str:
    """Ask the trainings of one generator, or of all, that run in `cluster.storage`; returns what was asked."""
    root = params.cluster.storage_folder
    running = {lock.parent: holder(lock.parent) for lock in sorted(root.glob(f"{generator or '*'}/*/lock"))}
    asked = [(storage, who) for storage, who in running.items() if who]
    for storage, _ in asked:
        stop_mark(storage).touch()
    lines = [f"{storage.parent.name}: {who} saves and stops after its next step" for storage, who in asked]
    return "\n".join(lines) or f"nothing is training in {root}"
