"""Open columns of shards/ as params.yaml describes them: data set, split, name, parameters and images.

A column is refused if the stage that writes it would now write another one. A setting is compared only if it decides
what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import ANYTHING, Expectation, refuse
from datasets.shards.manifest import Manifest, read_manifest
from datasets.sources import SOURCES
from files.durable import file_digest
from masks.hole_ratio import BINS
from pipeline.layout import column_folder, columns_of, stage_of
from pipeline.params import Params, ParamsError


def open_column(params: Params, column: str, split: str, *, images: Column | None = None) -> Column:
    """Open one column of one split.

    column: "image", "semantics", "mask" or a name in `edges`.
    images: the images that it must have been made from.
    Raises ManifestError if it is not complete, ShardError if it is another one, if params.yaml asks for no such column,
    or if a shard is missing.
    """
    folder, remedy = column_folder(column, split), remedy_of(column)
    opened = Column(folder, store=params.store, remedy=remedy)
    refuse(folder, differences(params, column, split, opened.manifest), remedy)
    if images:
        check_alignment(images, opened)
    return opened


def open_manifest(params: Params, column: str, split: str, *, images: Manifest | None = None) -> Manifest:
    """Read the manifest of one column of one split and compare it as `open_column` does, without the shards.

    images: manifest of the images that it must have been made from.
    """
    folder, remedy = column_folder(column, split), remedy_of(column)
    manifest = read_manifest(folder, remedy=remedy)
    refuse(folder, differences(params, column, split, manifest), remedy)
    if images:
        Expectation(made_from=images.digest).check(manifest, folder, remedy)
    return manifest


def differences(params: Params, column: str, split: str, manifest: Manifest) -> Iterator[str]:
    """Yield each entry of a manifest that is not as params.yaml describes the column, as text."""
    try:
        yield from expected(params, column, split).differences(manifest)
    except ParamsError as error:
        yield str(error)
    if column == "image":
        yield from _expected_lists(params, manifest).differences(manifest)


def check_derived(images: Column) -> None:
    """Check that every other column of a split was made from its images, also those that are not read.

    A generator that reads images alone has no other sign that they are those of this data set.
    Raises ShardError for the first column that was made from other images.
    """
    split = images.manifest.split
    for column in columns_of(split):
        if column != "image":
            folder, remedy = column_folder(column, split), remedy_of(column)
            Expectation(made_from=images.manifest.digest).check(read_manifest(folder, remedy=remedy), folder, remedy)


def remedy_of(column: str) -> str:
    """Return the command that writes a column again."""
    return f"dvc repro {stage_of(column)}"


def expected(params: Params, column: str, split: str) -> Expectation:
    """Return what params.yaml says about one column of one split. Raises ParamsError if it asks for no such column."""
    parameters = _PARAMETERS[stage_of(column)](params, column, split)
    return Expectation(dataset=params.dataset.name, split=split, column=column, parameters=parameters)


def _image_parameters(params: Params, column: str, split: str) -> dict[str, Any]:
    """Return the settings of ingest that decide the images of a split, and the options of the data set."""
    settings = asdict(params.ingest)
    del settings["max_rejected"]
    if split != "train" or params.ingest.format == "png":
        del settings["jpeg_quality"]
    if split != "train":  # always stored as PNG
        del settings["format"]
    options = SOURCES[params.dataset.name].card.options
    return settings | {name: getattr(params.dataset, name) for name in options}


def _edge_parameters(params: Params, column: str, split: str) -> dict[str, Any]:
    if column not in params.edges:
        raise ParamsError(f"params.yaml: edges has no {column}; it lists {', '.join(params.edges)}")
    return asdict(params.edges[column])


def _semantics_parameters(params: Params, column: str, split: str) -> dict[str, Any]:
    return params.semantics.describe(params.seed)


def _mask_parameters(params: Params, column: str, split: str) -> dict[str, Any]:
    if split != params.suite.split:
        raise ParamsError(f"params.yaml: suite.split is {params.suite.split!r}, so no masks of {split} are used")
    return {"masks": params.suite.masks.describe(), "seed": params.seed, "bins": BINS}


_PARAMETERS = {
    "ingest": _image_parameters,
    "edges": _edge_parameters,
    "semantics": _semantics_parameters,
    "masks": _mask_parameters,
}


def _expected_lists(params: Params, manifest: Manifest) -> Expectation:
    """Return the digests of the list files that a manifest names, of those at the top of the data set's folder.

    A list file in an archive, or on another machine, is not compared.
    """
    names = manifest.parameters.get("list_files")
    if params.dataset.root is None or not isinstance(names, Mapping):
        return ANYTHING
    root = Path(params.dataset.root).expanduser()
    folder = root if root.is_dir() else root.parent
    paths = {name: folder / Path(name).name for name in names}
    return Expectation(
        parameters={"list_files": {name: file_digest(path) for name, path in paths.items() if path.is_file()}}
    )
