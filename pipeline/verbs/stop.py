"""Ask running trainings to save and stop: by hand, or from the hook of a node that will be taken away."""

from __future__ import annotations

from jobs.runs.claim import find_holder
from jobs.runs.folder import list_run_folders
from pipeline.params import Params


def run(params: Params, generator: str | None) -> str:
    """Ask the trainings of one generator, or of all, that run in `cluster.storage`; returns what was asked."""
    root = params.cluster.storage_folder
    lines = []
    for folder in list_run_folders(root, generator):
        if holder := find_holder(folder):
            folder.stop_request.touch()
            lines.append(f"{folder.path.parent.name}: {holder} saves and stops after its next step")
    return "\n".join(lines) or f"nothing is training in {root}"
