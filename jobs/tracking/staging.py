"""Write the files of a training's run and model to its storage, from which they are uploaded: no server is asked."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files.addresses import without_secrets
from files.code_archive import process_code
from files.durable import durable_file, write_durably
from jobs.runs.folder import RunFolder

_RUN, _CODE, _MODEL = RunFolder.RUN, RunFolder.CODE, RunFolder.MODEL


@dataclass(frozen=True, kw_only=True)
class TrackedDataset:
    """One column of a split that a run read.

    name: of the data set, the split and the column.
    digest: of its manifest.
    source: its folder.
    records: how many it has.
    context: purpose of the reading, such as "training".
    """

    name: str
    digest: str
    source: str
    records: int
    context: str


def describe_run(
    storage: Path,
    name: str,
    *,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[TrackedDataset],
    files: Mapping[str, str],
) -> None:
    """Describe a training's run in its storage, beside the code of this process. A restart keeps those of the first
    start.

    Addresses are described without passwords and queries.

    storage: folder of the training.
    name: of the run.
    parameters: a tree of values; the run has them as flat texts.
    datasets: columns that the training reads.
    files: path below the run's artifacts -> text.
    """
    if (storage / _RUN).is_file():
        return
    write_durably(storage / _CODE, process_code().archive)
    description = {
        "name": name,
        "training": uuid.uuid4().hex,
        "started": time.time(),
        "tags": tags,
        "files": {path: without_secrets(text) for path, text in files.items()},
        "parameters": flatten(parameters),
        "datasets": [asdict(dataset) for dataset in datasets],
    }
    _write_json(storage / _RUN, description)


def stage_model(
    storage: Path,
    name: str,
    *,
    files: Mapping[str, Path],
    code: Mapping[str, bytes],
    tags: Mapping[str, str],
    requirements: Sequence[str],
    added: Mapping[str, bytes] | None = None,
    description: str = "",
    example_side: int | None = None,
    follows_lines: bool = False,
) -> None:
    """Copy a model to the storage, from which `deliver` registers it; see `mlflow_registry.register_model`.

    storage: folder of the training.
    name: of the registered model.
    files: name -> folder.
    code: files of one private package: path -> content.
    tags: of the registered version.
    requirements: pinned packages, such as "numpy==2.0.0".
    added: further files: "<name of files>/<folder>/<file>" -> content.
    description, example_side, follows_lines: those of `register_model`.
    """
    shutil.rmtree(storage / "model", ignore_errors=True)
    for key, folder in files.items():
        shutil.copytree(folder, storage / "model" / "files" / key / folder.name, copy_function=_copy)
    for path, content in (added or {}).items():
        write_durably(storage / "model" / "files" / path, content)
    for path, content in code.items():
        write_durably(storage / "model" / "code" / path, content)
    paths = {key: f"model/files/{key}/{folder.name}" for key, folder in files.items()}
    about = {"description": description, "example_side": example_side, "follows_lines": follows_lines}
    model = {"name": name, "files": paths, "tags": tags, "requirements": requirements, **about}
    _write_json(storage / _MODEL, {"ended": time.time(), "model": model})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a tree of parameters as MLflow stores them: `a.b` -> text, cut after 6000 characters."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows |= flatten(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = without_secrets(str(value))[:6000]
    return rows


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    write_durably(path, json.dumps(tree, indent=2).encode())


def _copy(source: str, target: str) -> None:
    with Path(source).open("rb") as read, durable_file(Path(target)) as written:
        shutil.copyfileobj(read, written)
