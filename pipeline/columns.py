"""Columns made from the images, record by record: same keys, same order, same shards."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from datasets.shards.column import Column, read_shard
from datasets.shards.manifest import (
    MANIFEST_NAME,
    RECORDS_NAME,
    Manifest,
    ManifestError,
    Rejected,
    Shard,
    read_manifest,
)
from datasets.shards.records import shard_number
from datasets.shards.store import put
from datasets.writing.parts import ShardContent, digest_of
from datasets.writing.tars import NewRecord
from files.durable import remove_partial_files, write_durably
from files.objects import StoreConfig
from files.pictures import decode_image
from pipeline import staging
from pipeline.code import stage_code
from pipeline.layout import column_folder, made_note
from pipeline.params import Params

_REMEDY = "dvc repro ingest"


class ColumnContent(ABC):
    """What a column holds of each record; picklable, since it travels to where shards are written."""

    @abstractmethod
    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        """The files of a record, by suffix, of its key and its image, uint8 (H, W, 3)."""

    @property
    def inputs(self) -> Any:
        """All that the files depend on beside key, image and code: dataclasses and plain data."""
        return self

    def of(self, keys: Sequence[str]) -> ColumnContent:
        """The same for these records alone: what one shard's task takes along."""
        return self


@dataclass(frozen=True, kw_only=True)
class DerivedShard(ShardContent):
    """One shard of a column: what the members are of each image of one image shard."""

    images: Path
    shard: Shard
    members: ColumnContent
    store: StoreConfig

    @property
    def num_sources(self) -> int:
        return self.shard.records

    @property
    def inputs(self) -> Any:
        return self.shard, self.members.inputs

    def samples(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        for key, image in read_shard(self.images, self.shard, store=self.store, remedy=_REMEDY):
            (content,) = image.values()
            yield NewRecord(key=key, members=self.members(key, decode_image(content)), about={})


def image_splits() -> list[str]:
    """The splits that shards/image has."""
    return sorted(path.parent.name for path in column_folder("image", "").glob("*/manifest.json"))


def derive_column(
    params: Params,
    stage: str,
    splits: Sequence[str],
    column: str,
    members: ColumnContent,
    parameters: Mapping[str, Any],
    *,
    keep: bool = False,
) -> None:
    """Write one column of some splits, a shard a task, each split's manifest last. Replaces the column whole.

    stage: its name in dvc.yaml, which declares the code that makes the column.
    keep: leave it as it is if it would become the same.
    Raises ManifestError or ShardError when the images are not complete or not what their manifest says.
    """
    if not splits:
        raise ManifestError(f"{column_folder('image', '')} has no complete split; run: {_REMEDY}")
    plan, manifests = {}, {}
    for split in splits:
        folder = column_folder("image", split).resolve()
        images = read_manifest(folder, remedy=_REMEDY)
        plan[split] = {
            shard_number(shard.name): DerivedShard(
                images=folder, shard=shard, members=members.of(keys), store=params.store
            )
            for shard, keys in zip(images.shards, _keys(folder, images), strict=True)
        }
        manifests[split] = Manifest(
            dataset=images.dataset,
            split=split,
            column=column,
            licence=images.licence,
            shards=(),
            records_sha256="",
            made_from=images.digest,
            parameters=dict(parameters),
        )
    code = stage_code(stage)
    inputs = _inputs(plan, manifests, code)
    if keep:
        remove_partial_files(made_note(column).parent)
        if _is_made(column, inputs, params.store):
            _put(column, params.store)
            return
    num_workers = params.cluster.num_workers
    staging.commit_column(column, plan, manifests, code=code, num_workers=num_workers, store=params.store)
    if keep:
        write_durably(made_note(column), json.dumps({"inputs": inputs, "manifests": _digests(column)}).encode())


def _inputs(
    plan: Mapping[str, Mapping[int, ShardContent]], manifests: Mapping[str, Manifest], code: Mapping[str, str]
) -> str:
    """Digest of all that a column's bytes depend on, code included."""
    contents = {split: [(number, each.inputs) for number, each in ours.items()] for split, ours in plan.items()}
    return digest_of([contents, manifests, code])


def _is_made(column: str, inputs: str, store: StoreConfig) -> bool:
    """Whether the note of a column names these inputs and the column still has exactly the bytes that were made."""
    try:
        note = json.loads(made_note(column).read_bytes())
        if note != {"inputs": inputs, "manifests": _digests(column)}:
            return False
        for split in note["manifests"]:
            made = Column(column_folder(column, split), store=store)
            made.verify()
            ours = {MANIFEST_NAME, RECORDS_NAME, *(shard.name for shard in made.manifest.shards)}
            if any(path.name not in ours for path in made.folder.iterdir()):
                return False
    except (OSError, ValueError):  # no note or a damaged one, or UserErrors of manifests, shards and stores
        return False
    return True


def _put(column: str, store: StoreConfig) -> None:
    """Move what lies beside the manifests into the store, if there is one by now."""
    for split in _digests(column):
        folder = column_folder(column, split)
        for shard in read_manifest(folder).shards:
            if (folder / shard.name).is_file():
                put(store, folder, shard)


def _digests(column: str) -> dict[str, str]:
    """Split -> digest of the manifest that lies there."""
    folders = sorted(column_folder(column, "").iterdir())
    return {folder.name: read_manifest(folder).digest for folder in folders}


def _keys(folder: Path, images: Manifest) -> Iterator[list[str]]:
    """The keys of each shard."""
    keys = pq.read_table(folder / RECORDS_NAME, columns=["key"])["key"]  # an image has one member, so one row
    start = 0
    for shard in images.shards:
        yield keys.slice(start, shard.records).to_pylist()
        start += shard.records
