"""Put the parameters and the code of a tracked training in place, so that `dvc repro` makes its weights again."""

from __future__ import annotations

import io
import json
import tempfile
from argparse import Namespace
from pathlib import Path

from ruamel.yaml import YAML

from files.checkout import ROOT, list_changes, name_some
from files.code_archive import read_archive
from files.durable import file_digest, write_durably
from files.errors import UserError
from jobs.tracking.mlflow_runs import fetch_record
from pipeline.verbosity import say


class RestoreError(UserError):
    """The record of a training is damaged, or it would replace what git cannot give back."""


def run(training: str) -> tuple[str, ...]:
    """Write params.yaml, dvc.yaml, requirements.lock and the folders of code as a training began with them.

    Files of code that the training did not have stay.

    training: its id, which the tag `rebuild` of a registered version has.
    Returns the paths of the files that were changed.
    Raises RestoreError for a damaged record, and before anything is written if a file that is to be replaced differs
    from git's commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        parameters, code, tags = fetch_record(training, Path(folder))
        if file_digest(code) != tags.get("code_sha256"):
            raise RestoreError(f"the code of the training {training} has another digest than its run says")
        files = {**read_archive(code), "params.yaml": _to_yaml(parameters.read_bytes())}
    changed = tuple(name for name, content in files.items() if not _has_content(ROOT / name, content))
    _check_kept(changed)
    for name in changed:
        write_durably(ROOT / name, files[name])
    return changed


def _to_yaml(content: bytes) -> bytes:
    """Return the parameters of a training, which are recorded as JSON, as the text of params.yaml."""
    buffer = io.BytesIO()
    YAML().dump(json.loads(content), buffer)
    return buffer.getvalue()


def _has_content(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _check_kept(names: tuple[str, ...]) -> None:
    """Raise RestoreError if one of the files, or a version of it, exists only here. Without git all may be replaced."""
    lost = tuple(name for name in list_changes() or () if name in names and (ROOT / name).is_file())
    if lost:
        raise RestoreError(
            f"{name_some(lost)} would be replaced, and git's commit does not have what is there; commit it, or put it "
            "aside with: git stash --include-untracked"
        )


VERB = {
    "help": "put the parameters and the code of a tracked training in place",
    "example": "restore 5f0c2a9d4b7e4c0f9a5d3b1e8c7f6a42",
    "arguments": {"training": {"help": "id of the training, in the tag rebuild of its registered version"}},
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Restore, and print the names of the files that were changed."""
    changed = run(arguments.training)
    say(f"restored: {name_some(changed) or 'everything was in place'}")
    return 0
