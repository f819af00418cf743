"""Pack a registered version for someone without this repository."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

from jobs.tracking import mlflow_registry as registry
from pipeline.lineage.registry import check_server, split_reference
from pipeline.lineage.release import ReleaseError, release
from pipeline.verbosity import say


def run(reference: str, output: str) -> str:
    """Pack a version into a tar. Returns the digest of the list of its files.

    reference: NAME@ALIAS or NAME@NUMBER.
    output: the tar to write.
    Raises ReleaseError for a name that is no tar's or leads to no folder.
    """
    target = Path(output)
    if target.suffix != ".tar" or target.is_dir() or not target.parent.is_dir():
        raise ReleaseError(f"{output}: give the name of a .tar in a folder that exists")
    check_server(reference)
    version = registry.find_version(*split_reference(reference))
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        return release(version, target.resolve(), Path(folder))


VERB = {
    "help": "pack a registered version with card, records, code and licence for someone without this repository",
    "example": "release inpaint-edge_connect@champion edge_connect.tar",
    "arguments": {
        "version": {"help": "a version such as inpaint-lama@champion or inpaint-lama@3"},
        "output": {"help": "the .tar to write"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Pack the version, and print the digest that its reader must be told."""
    digest = run(arguments.version, arguments.output)
    say(
        f"{arguments.version} is packed in {arguments.output}; tell its readers the SHA-256 of its SHA256SUMS: {digest}"
    )
    return 0
