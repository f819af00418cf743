"""Register models in MLflow, and find, fetch and load registered versions. Runs are in mlflow_runs.py."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from files.errors import UserError
from jobs.runs.history import Version, add_version, set_alias
from jobs.tracking.address import tracking_uri
from jobs.tracking.mlflow_runs import fetch_file, find_experiment, open_client, reason  # sets what mlflow reads
from jobs.tracking.model_files import Fill, ModelError, check_files, find_loader, open_model, write_digests
from jobs.tracking.sketches import SKETCH

# isort: split
import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

MAX_DESCRIPTION = 5000
"""Characters of a version's description that a server keeps."""
FILES_TAG = "files_sha256"
"""Tag of a registered version: the digest of the list of its files' digests."""


def register_model(
    run_id: str,
    name: str,
    *,
    files: Mapping[str, Path],
    tags: Mapping[str, str],
    code: Path,
    requirements: Sequence[str],
    description: str = "",
    example_side: int | None = None,
    follows_lines: bool = False,
) -> str:
    """Register a trained generator, once for each run, and give it the alias `candidate`. Returns its version.

    The model is code and data, without pickle. It takes and returns 8-bit images. The tag FILES_TAG of the version has
    the digest with which `load_model` checks every file.

    name: of the registered model.
    files: "model" -> folder of weights and receipt.
    tags: of the version.
    code: folder with one private package, see jobs/tracking/private_package.py.
    requirements: pinned packages, such as "numpy==2.0.0".
    description: of the version, in Markdown.
    example_side: side of the drawn picture that is its input example, in pixels; None gives none.
    follows_lines: whether it takes a sketch.
    Raises ModelError if there is no private package in `code`.
    """
    client = open_client()
    version = _version_of(client, name, run_id)
    if version is None:
        with tempfile.TemporaryDirectory(dir=code.parent) as folder:
            model = Path(folder) / "model"
            _save_model(model, files["model"], code, requirements, example_side, follows_lines=follows_lines)
            version = _create_version(client, run_id, name, model, tags, description)
    client.set_registered_model_alias(name, "candidate", version)
    add_version(Version(name=name, version=version, run_id=run_id, tags=client.get_model_version(name, version).tags))
    set_alias(name, "candidate", version)
    return version


@dataclass(frozen=True)
class FetchedModel:
    """The files of a registered version on this disk, checked.

    version: its number.
    weights_sha256: digest of its weights.
    follows_lines: whether it takes a sketch.
    size: `ingest.size` of its training, in pixels; None if its run does not say it.
    open: loads it as `load_model` does; can be pickled.
    """

    version: str
    weights_sha256: str
    follows_lines: bool
    size: int | None
    open: Callable[[], Fill]


def fetch_model(name: str, version: str, folder: Path) -> FetchedModel:
    """Copy a registered version to a folder.

    name, version: those of `load_model`.
    folder: keeps the files for as long as the model is used.
    Raises ModelError if there is no such version, or if a file has been changed.
    """
    try:
        model, found = _download(name, version, folder)
        described = mlflow.models.Model.load(str(model))
        pyfunc = described.flavors[mlflow.pyfunc.FLAVOR_NAME]
        size = _training_size(found.run_id, folder)
    except (MlflowException, OSError, UserError) as error:
        raise ModelError(f"{name} {version} cannot be loaded: {reason(error)}") from error
    code, data = (model / pyfunc[key] for key in (mlflow.pyfunc.CODE, mlflow.pyfunc.DATA))
    opener = partial(open_model, loader=pyfunc[mlflow.pyfunc.MAIN], code=code, data=data)
    parameters = described.signature and described.signature.params
    return FetchedModel(
        version=found.version,
        weights_sha256=found.tags.get("weights_sha256", ""),
        follows_lines=any(parameter.name == SKETCH for parameter in parameters or ()),
        size=size,
        open=opener,
    )


def _training_size(run_id: str, folder: Path) -> int | None:
    """Return `ingest.size` of the parameters of a run; None if they are gone. folder: for their file."""
    try:
        return json.loads(fetch_file(run_id, "params.json", folder).read_bytes())["ingest"]["size"]
    except (MlflowException, OSError, KeyError, ValueError):
        return None


def load_model(name: str, version: str) -> Fill:
    """Load a registered generator as a function of images, masks and a sketch; see `jobs.tracking.model_files.Fill`.

    Every file is compared with the digest in the version's tag before any code of it is imported.

    The function returns the filled image, uint8 (N, H, W, 3), and raises UserError for an image or mask that the paper
    cannot take.
    name: of the registered model.
    version: a number, or an alias such as "candidate".
    Raises ModelError if there is no such version, if a file has been changed, or if it cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="inpaint-") as folder:
        return open_fetched(fetch_model(name, version, Path(folder)), name, version)


def open_fetched(model: FetchedModel, name: str, version: str) -> Fill:
    """Load a fetched model. name, version: for the message of the ModelError if it cannot be loaded."""
    try:
        return model.open()
    except (MlflowException, ImportError, OSError, UserError) as error:
        raise ModelError(f"{name} {version} cannot be loaded: {reason(error)}") from error


def _download(name: str, version: str, folder: Path) -> tuple[Path, Version]:
    """Copy the files of a registered version to a folder and check them. Returns where they are, and the version."""
    found = find_version(name, version)
    model = fetch_version(found, folder)
    check_files(model, found.tags[FILES_TAG])
    return model, found


def fetch_version(version: Version, folder: Path) -> Path:
    """Copy the files of a registered version to a folder, unchecked. Returns where they are.

    Python's caches, which other programs leave in a store when they import from it, are not among them.
    Raises ModelError for a version whose files cannot be checked.
    """
    if FILES_TAG not in version.tags:
        raise ModelError(f"it was registered without the tag {FILES_TAG}, so its files cannot be checked; train again")
    mlflow.set_tracking_uri(tracking_uri())
    source = open_client().get_model_version_download_uri(version.name, version.version)
    copy = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder)))
    for cache in list(copy.rglob("__pycache__")):
        shutil.rmtree(cache)
    return copy


def find_version(name: str, version: str) -> Version:
    """Return a registered version. version: a number, or an alias. Raises ModelError if there is none."""
    client = open_client()
    try:
        find = client.get_model_version if version.isdigit() else client.get_model_version_by_alias
        found = find(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ModelError(f"{name}@{version} is not found at the tracking server") from error
    return _describe(found)


def newest_version(name: str, tags: Mapping[str, str]) -> Version | None:
    """Return the newest registered version that has the tags; None if there is none.

    name: of the registered model.
    """
    conditions = [f"name = '{name}'", *(f"tags.{key} = '{value}'" for key, value in tags.items())]
    versions = open_client().search_model_versions(" and ".join(conditions))
    newest = max(versions, key=lambda version: int(version.version), default=None)
    return None if newest is None else _describe(newest)


def list_registered() -> list[Version]:
    """Return all registered versions of this project's models, sorted by name and number."""
    found = open_client().search_model_versions("name LIKE 'inpaint-%'")
    return sorted(map(_describe, found), key=lambda version: (version.name, int(version.version)))


def _describe(found: ModelVersion) -> Version:
    return Version(name=found.name, version=str(found.version), run_id=found.run_id, tags=found.tags)


def log_figures(version: Version, figures: Mapping[str, float], *, suite: str, step: int) -> None:
    """Log figures of an evaluation to a version, and to the run that it came from.

    suite: id of the suite.
    step: last step of the training.
    """
    client = open_client()
    source = client.get_model_version(version.name, version.version).source  # "models:/" and the id of its files
    model_id = source.removeprefix("models:/")
    now = int(1000 * time.time())
    place = {"model_id": model_id, "dataset_name": "suite", "dataset_digest": suite[:36]}  # MLflow keeps no more
    metrics = [Metric(key, value, now, step, **place) for key, value in figures.items()]
    for start in range(0, len(metrics), 1000):
        client.log_batch(version.run_id, metrics=metrics[start : start + 1000])


def set_version_tags(version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version, in place of those of the same names."""
    for key, value in tags.items():
        open_client().set_model_version_tag(version.name, version.version, key, value)


def set_description(version: Version, text: str) -> None:
    """Set the description of a version, in Markdown."""
    open_client().update_model_version(version.name, version.version, description=text[:MAX_DESCRIPTION])


def describe_model(name: str, text: str) -> None:
    """Set the description of a registered model, of which the versions are, in Markdown."""
    open_client().update_registered_model(name, description=text)


def move_alias(version: Version, alias: str) -> None:
    """Give a version an alias, which the version that had it loses."""
    open_client().set_registered_model_alias(version.name, alias, version.version)
    set_alias(version.name, alias, version.version)


def _save_model(
    folder: Path, weights: Path, code: Path, requirements: Sequence[str], side: int | None, *, follows_lines: bool
) -> None:
    """Write the files of a model as MLflow loads them: see `mlflow.pyfunc.load_model`."""
    image, mask = (TensorSpec(np.dtype(np.uint8), (-1, -1, -1, channels)) for channels in (3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a missing input example
        mlflow.pyfunc.save_model(
            folder,
            loader_module=find_loader(code),
            data_path=str(weights),
            code_paths=[str(path) for path in sorted(code.iterdir())],
            signature=ModelSignature(
                inputs=Schema(
                    [TensorSpec(image.type, image.shape, "image"), TensorSpec(mask.type, mask.shape, "mask")]
                ),
                outputs=Schema([image]),
                params=ParamSchema([ParamSpec(SKETCH, "string", "")]) if follows_lines else None,
            ),
            pip_requirements=list(requirements),
            input_example=_draw_example(side) if side else None,
        )


def _draw_example(side: int) -> dict[str, np.ndarray]:
    """Return a drawn picture, uint8 (1, side, side, 3), with a hole in its middle, uint8 (1, side, side, 1).

    It is no picture of the data, whose licence may forbid a copy.
    """
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(127)), axis=-1)
    mask = np.zeros((side, side, 1), np.uint8)
    mask[side // 3 : 2 * side // 3, side // 3 : 2 * side // 3] = 1
    return {"image": image[None], "mask": mask[None]}


def _create_version(
    client: mlflow.MlflowClient, run_id: str, name: str, folder: Path, tags: Mapping[str, str], description: str
) -> str:
    """Upload the files of a model and create its version together with all tags, last of all."""
    experiment = find_experiment(client)
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)  # of a registration that was killed
    sha256 = write_digests(folder)
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    mlflow.set_tracking_uri(tracking_uri())  # the registry asks it for the place of the files
    version = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags={**tags, FILES_TAG: sha256},
        model_id=model.model_id,
        description=description[:MAX_DESCRIPTION],
    )
    return str(version.version)


def _version_of(client: mlflow.MlflowClient, name: str, run_id: str) -> str | None:
    """Return the registered version that came from a run, or None."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return min((str(version.version) for version in versions), key=int, default=None)
