"""Check that a generator can be trained with the content of a column."""

from __future__ import annotations

from typing import Any

from datasets.shards.column import Column


def mismatch(name: str, column: Column, *, generator: str, config: Any, crop: int | None) -> str:
    """Return why a generator cannot be trained with a complete column, or "" if it can.

    name: the name that recipes give the column: "image", "edge" or "semantics".
    config: the generator's hyperparameters.
    crop: side of the random training crop, in pixels; None trains with the images as stored.
    """
    if name == "image" and crop is None:
        return _unequal_sizes(column)
    if name == "semantics":
        return _too_many_classes(column, generator, config)
    return ""


def _unequal_sizes(column: Column) -> str:
    sizes = column.table.group_by(["width", "height"]).aggregate([]).to_pylist()
    if len(sizes) == 1:
        return ""
    width, height = min((size["width"], size["height"]) for size in sizes)
    return (
        f"{column.folder} has images of {len(sizes)} sizes ({width} x {height} and others), but a batch needs one; set "
        "ingest.rule to crop, cut or squash, or train.samples.crop, in params.yaml"
    )


def _too_many_classes(column: Column, generator: str, config: Any) -> str:
    classes = len(column.manifest.parameters["classes"])
    key = next((name for name in ("num_classes", "regions") if hasattr(config, name)), None)
    if key is None or classes <= getattr(config, key):  # a recipe without these settings takes any number
        return ""
    return (
        f"params.yaml: generators.{generator}.{key} is {getattr(config, key)}, but {column.folder} has {classes} "
        f"classes; set it to {classes}"
    )
