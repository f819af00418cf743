"""Descriptions of a training for the tracking server: its run, and the model to be registered."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from files.checkout import ROOT, is_modified, read_commit
from files.durable import file_digest
from jobs.runs.folder import RunFolder
from jobs.runs.receipt import Receipt
from jobs.tracking.delivery import describe_run, stage_model
from jobs.tracking.mlflow_runs import TrackedDataset
from jobs.tracking.private_package import make_package, read_sources

_LOADING = ("mlflow", "pillow")  # loads a registered model, and reads and writes pictures for it


def describe_training(
    folder: RunFolder,
    *,
    generator: str,
    identity: str,
    parameters: Mapping[str, Any],
    datasets: Sequence[TrackedDataset],
    params_json: str,
) -> None:
    """Describe the one run of a training in its run folder. A restart keeps the first description.

    identity: of the experiment.
    parameters: nested values to track.
    params_json: all parameters of the pipeline, as JSON, to be stored as a file.
    """
    describe_run(
        folder.path,
        generator,
        parameters=parameters,
        tags={"generator": generator, "identity": identity, **_code_tags()},
        datasets=datasets,
        files={"params.json": params_json},
    )


def stage_trained_model(
    folder: RunFolder, model: Path, receipt: Receipt, *, dataset: str, licence: str, code: Path = ROOT
) -> None:
    """Copy a trained model to its run folder, from which it is registered as `inpaint-<generator>`.

    model: folder of weights and receipt.
    dataset: name of the data set of the images.
    licence: of the images.
    code: checkout that trained the model, a folder or a .zip file.
    """
    package = make_package(read_sources(code), receipt.generator)
    stage_model(
        folder.path,
        f"inpaint-{receipt.generator}",
        files={"model": model},
        tags={
            "weights_sha256": receipt.weights_sha256,
            "images_manifest": receipt.images,
            **{f"{name}_manifest": digest for name, digest in receipt.columns.items()},
            "identity": receipt.experiment,
            **_code_tags(),
            "packages_lock": file_digest(ROOT / "requirements.lock"),
            "steps": str(receipt.steps),
            "not_repeatable": ", ".join(receipt.not_repeatable) or "nothing",
            "dataset": dataset,
            "licence": licence,
            "rebuild": f"git checkout {read_commit()} && make setup && dvc repro train@{receipt.generator}",
        },
        code=package.files,
        requirements=_requirements(package.third_party),
    )


def _requirements(modules: Sequence[str]) -> list[str]:
    """Return the installed packages that have some modules, and those that loading needs, pinned: "numpy==2.0.0"."""
    packages = importlib.metadata.packages_distributions()
    needed = {*_LOADING, *(package for module in modules for package in packages.get(module, ()))}
    return [f"{name}=={importlib.metadata.version(name)}" for name in sorted(needed)]


def _code_tags() -> dict[str, str]:
    return {"git_commit": read_commit(), "git_dirty": str(is_modified())}
