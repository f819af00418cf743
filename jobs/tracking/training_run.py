"""Descriptions of a training for the tracking server: its run, and the model to be registered."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from files.code_archive import describe_changes, process_code
from jobs.runs.folder import RunFolder
from jobs.runs.receipt import Receipt
from jobs.tracking.private_package import find_needed, find_third_party, make_package, read_sources
from jobs.tracking.staging import TrackedDataset, describe_run, stage_model

_LOADING = ("mlflow", "pillow")  # loads a registered model, and reads and writes pictures for it
_PARAMETERS, _REQUIREMENTS = "params.json", "requirements.txt"
RECORD_NAME = "provenance.json"
"""File of a registered model, beside its receipt."""
CARD_NAME = "README.md"
"""File of a registered model: its card as it was at the registration, before any evaluation."""


def describe_training(
    folder: RunFolder,
    *,
    generator: str,
    identity: str,
    parameters: Mapping[str, Any],
    datasets: Sequence[TrackedDataset],
    params_json: str,
    packages_lock: str,
    changes: Collection[str] | None,
) -> None:
    """Describe the one run of a training in its run folder. A restart keeps the first description.

    identity: of the experiment.
    parameters: nested values to track.
    params_json: all parameters of the pipeline, as JSON, to be stored as a file.
    packages_lock: SHA-256 of the lock of packages.
    changes: files that the training depends on and that differ from git's commit; None if that is not known.
    """
    code = process_code()
    needed = find_needed(read_sources(io.BytesIO(code.archive)), generator)  # some of it only fills
    differing = None if changes is None else tuple(n for n in code.changes if n in needed or n in changes)
    describe_run(
        folder.path,
        generator,
        parameters=parameters,
        tags={
            "generator": generator,
            "identity": identity,
            "git_commit": code.commit,
            "git_dirty": str(differing != ()),
            "git_changes": describe_changes(differing),
            "code_sha256": code.digest,
            "packages_lock": packages_lock,
        },
        datasets=datasets,
        files={_PARAMETERS: params_json, _REQUIREMENTS: "\n".join(_requirements(find_third_party(needed)))},
    )


def stage_trained_model(
    folder: RunFolder,
    model: Path,
    receipt: Receipt,
    *,
    data: Mapping[str, str],
    record: bytes,
    describe: Callable[[Mapping[str, str]], str],
    example_side: int,
) -> None:
    """Copy a trained model to its run folder, from which it is registered as `inpaint-<generator>`.

    Code, commit and packages are those of the start of the training, which its run folder holds.

    model: folder of weights and receipt.
    data: tags about the data set of the images and the rights in it.
    record: the provenance record of the training, which the model carries.
    describe: makes the card of the version from its tags.
    example_side: side of a picture that the model can fill, in pixels.
    """
    description = json.loads(folder.run.read_bytes())
    at_start = {name: text for name, text in description["tags"].items() if name != "generator"}
    tags = {
        **at_start,
        "weights_sha256": receipt.weights_sha256,
        "provenance_sha256": hashlib.sha256(record).hexdigest(),
        "params_sha256": hashlib.sha256(description["files"][_PARAMETERS].encode()).hexdigest(),
        "images_manifest": receipt.images,
        **{f"{name}_manifest": digest for name, digest in receipt.columns.items()},
        "steps": str(receipt.steps),
        "not_repeatable": ", ".join(receipt.not_repeatable) or "nothing",
        **data,
        "rebuild": _rebuild_command(at_start["git_commit"], description["training"], receipt.generator),
    }
    card = describe(tags)
    stage_model(
        folder.path,
        f"inpaint-{receipt.generator}",
        files={"model": model},
        added={f"model/{model.name}/{RECORD_NAME}": record, f"model/{model.name}/{CARD_NAME}": card.encode()},
        tags=tags,
        description=card.partition("\n\n")[2],
        example_side=example_side,
        follows_lines=receipt.edges is not None,
        code=make_package(read_sources(folder.code), receipt.generator).files,
        requirements=description["files"][_REQUIREMENTS].splitlines(),
    )


def _requirements(modules: Sequence[str]) -> list[str]:
    """Return the installed packages that have some modules, and those that loading needs, pinned: "numpy==2.0.0"."""
    packages = importlib.metadata.packages_distributions()
    needed = {*_LOADING, *(package for module in modules for package in packages.get(module, ()))}
    return [f"{name}=={importlib.metadata.version(name)}" for name in sorted(needed)]


def _rebuild_command(commit: str, training: str, generator: str) -> str:
    """Return the command line that makes the weights again, in a checkout of this repository.

    `restore` puts the parameters and the code of the training in place, so that it may differ from the commit. The
    environment is made before it, since it needs one, and updated after it.
    """
    checkout = [] if commit == "unknown" else [f"git checkout {commit}"]
    restore = f"python -m pipeline restore {training}"
    steps = [*checkout, "make setup", ". .venv/bin/activate", restore, "make setup", f"dvc repro train@{generator}"]
    return " && ".join(steps)
