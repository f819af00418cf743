"""Whether a generator can be trained with what the columns hold."""

from __future__ import annotations

from datasets.shards.column import Column
from pipeline.params import Params


def unfit(params: Params, generator: str, name: str, column: Column) -> str:
    """Why a generator cannot be trained with a column that is whole, or ""."""
    if name == "image" and params.train.samples.crop is None:
        sizes = column.table.group_by(["width", "height"]).aggregate([]).to_pylist()
        if len(sizes) > 1:
            pixels = sorted((size["width"], size["height"]) for size in sizes)
            return (
                f"{column.folder} has images of {len(sizes)} sizes ({pixels[0][0]} x {pixels[0][1]} and others), but "
                "a batch needs one; set ingest.rule to crop, cut or squash, or train.samples.crop, in params.yaml"
            )
    if name == "semantics":
        classes, known = len(column.manifest.parameters["classes"]), params.generators[generator]
        if classes > getattr(known, "num_classes", classes):
            return (
                f"params.yaml: generators.{generator}.num_classes is {known.num_classes}, but {column.folder} has "
                f"{classes} classes; set it to {classes}"
            )
    return ""
