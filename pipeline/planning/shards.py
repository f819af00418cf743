"""Find the shards on this disk: the folders that training reads, and their bytes."""

from __future__ import annotations

from pathlib import Path

from datasets.shards.manifest import read_manifest
from pipeline.layout import column_folder, columns_of, image_splits


def training_folders(edges: str) -> dict[str, Path]:
    """Return the absolute folders of the train split that are here, by the name that a recipe gives their column.

    edges: the column of edges that is trained with, as there may be several.
    """
    stored = {"image": "image", "edge": edges, "semantics": "semantics"}
    complete = columns_of("train")
    return {name: column_folder(column, "train").resolve() for name, column in stored.items() if column in complete}


def folder_bytes(folder: Path) -> int:
    """Return the bytes of a column's shards, as its manifest lists them."""
    return sum(shard.bytes for shard in read_manifest(folder).shards)


def all_bytes() -> int:
    """Return the bytes of all shards that are here, of every column and split."""
    splits = image_splits(complete_only=False)
    return sum(folder_bytes(column_folder(column, split)) for split in splits for column in columns_of(split))
