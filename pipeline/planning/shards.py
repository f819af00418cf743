"""Find the shards on this disk: the columns that training reads, and the bytes of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.shards.manifest import Manifest, read_manifest
from pipeline.columns import open_manifest
from pipeline.layout import column_folder, columns_of, image_splits
from pipeline.params import Params


def training_manifests(
    params: Params, names: Sequence[str] = ("edge", "semantics")
) -> dict[str, tuple[Path, Manifest]]:
    """Find the images of the train split and other columns of it, as far as they are here.

    names: the other columns, as recipes name them.
    Returns name -> absolute folder and manifest. Raises ShardError for a column that is not as params.yaml describes it
    or was made from other images.
    """
    columns: dict[str, tuple[Path, Manifest]] = {}
    for name in ("image", *names):
        stored = params.train.edges if name == "edge" else name
        folder = column_folder(stored, "train")
        if folder.is_dir():
            images = columns["image"][1] if "image" in columns else None
            columns[name] = folder.resolve(), open_manifest(params, stored, "train", images=images)
    return columns


def shards_bytes(manifest: Manifest) -> int:
    """Return the bytes of a column's shards, as its manifest lists them."""
    return sum(shard.bytes for shard in manifest.shards)


def all_bytes() -> int:
    """Return the bytes of all shards that are here, of every column and split."""
    splits = image_splits(complete_only=False)
    folders = [column_folder(column, split) for split in splits for column in columns_of(split)]
    return sum(shards_bytes(read_manifest(folder)) for folder in folders)
