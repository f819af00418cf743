"""Write a column that is computed from images: same keys, same order, same shards."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from datasets.shards.column import Column
from datasets.shards.manifest import (
    MANIFEST_NAME,
    RECORDS_NAME,
    Manifest,
    Rejected,
    Shard,
    read_manifest,
)
from datasets.shards.records import shard_number
from datasets.shards.store import put
from datasets.shards.whole_shard import read_shard
from datasets.writing.digests import digest_of
from datasets.writing.runner import TaskRunner
from datasets.writing.shard_tasks import ShardContent
from datasets.writing.staging import ColumnTarget, commit_column
from datasets.writing.tars import NewRecord
from files.durable import remove_partial_files, write_durably
from files.objects import StoreConfig
from files.pictures import decode_image

_REMEDY = "dvc repro ingest"


class ColumnContent(ABC):
    """A function from an image to the members of one record. Picklable: it is sent to the workers."""

    @abstractmethod
    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        """Make the members of one record.

        key: the record's key.
        image: uint8 (H, W, 3).
        Returns field name -> bytes.
        """

    @property
    def inputs(self) -> Any:
        """Everything but key, image and code that decides the members: any value that `digest_of` accepts."""
        return self

    def select(self, keys: Sequence[str]) -> ColumnContent:
        """Return the content that one shard's task needs, for these keys alone."""
        return self


@dataclass(frozen=True, kw_only=True)
class DerivedShard(ShardContent):
    """The records that a `ColumnContent` makes from one image shard.

    images: absolute path of the folder of image shards.
    shard: the image shard.
    """

    images: Path
    shard: Shard
    content: ColumnContent
    store: StoreConfig

    @property
    def num_sources(self) -> int:
        return self.shard.records

    @property
    def inputs(self) -> Any:
        return self.shard, self.content.inputs

    def records(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        for key, members in read_shard(self.images, self.shard, store=self.store, remedy=_REMEDY):
            (encoded,) = members.values()
            yield NewRecord(key=key, members=self.content(key, decode_image(encoded)), about={})


def derive_column(
    target: ColumnTarget,
    images: Mapping[str, Path],
    content: ColumnContent,
    parameters: Mapping[str, Any],
    runner: TaskRunner,
    *,
    note: Path | None = None,
) -> None:
    """Replace a column by one that is made from images, a task per image shard.

    images: split -> absolute path of its folder of image shards.
    parameters: entries of the manifests that describe the column.
    note: file that remembers how the column was made. If given, a column that would get the same bytes is kept.
    Raises ManifestError or ShardError if the images are incomplete or differ from their manifest.
    """
    contents, manifests = {}, {}
    for split, folder in images.items():
        manifest = read_manifest(folder, remedy=_REMEDY)
        contents[split] = _shard_contents(folder, manifest, content, target.store)
        manifests[split] = _derived_manifest(manifest, target.name, parameters)
    if note is None:
        commit_column(target, contents, manifests, runner)
        return
    inputs = _digest_inputs(target, contents, manifests)
    remove_partial_files(note.parent)
    if _is_current(target, inputs, note):
        target.check_inputs()
        _move_to_store(target)
        return
    commit_column(target, contents, manifests, runner)
    write_durably(note, json.dumps({"inputs": inputs, "manifests": _manifest_digests(target.folder)}).encode())


def _shard_contents(
    folder: Path, manifest: Manifest, content: ColumnContent, store: StoreConfig
) -> dict[int, DerivedShard]:
    """Return, for each image shard's number, the content of the shard that is made from it."""
    return {
        shard_number(shard.name): DerivedShard(images=folder, shard=shard, content=content.select(keys), store=store)
        for shard, keys in zip(manifest.shards, _read_keys(folder, manifest), strict=True)
    }


def _derived_manifest(images: Manifest, column: str, parameters: Mapping[str, Any]) -> Manifest:
    """Return the manifest of one split, still without shards and records."""
    return Manifest(
        dataset=images.dataset,
        split=images.split,
        column=column,
        licence=images.licence,
        shards=(),
        records_sha256="",
        made_from=images.digest,
        parameters=dict(parameters),
    )


def _read_keys(folder: Path, manifest: Manifest) -> Iterator[list[str]]:
    """Yield the keys of each image shard."""
    keys = pq.read_table(folder / RECORDS_NAME, columns=["key"])["key"]  # one row per image, which has one member
    start = 0
    for shard in manifest.shards:
        yield keys.slice(start, shard.records).to_pylist()
        start += shard.records


def _digest_inputs(
    target: ColumnTarget, contents: Mapping[str, Mapping[int, ShardContent]], manifests: Mapping[str, Manifest]
) -> str:
    """Return the digest of everything that decides the bytes of a column, code included."""
    inputs = {
        split: [(number, content.inputs) for number, content in of_split.items()]
        for split, of_split in contents.items()
    }
    return digest_of([inputs, manifests, target.code])


def _is_current(target: ColumnTarget, inputs: str, note: Path) -> bool:
    """Return whether the note names these inputs, and the column still has exactly the bytes that were made of them."""
    try:
        made = json.loads(note.read_bytes())
        if made != {"inputs": inputs, "manifests": _manifest_digests(target.folder)}:
            return False
        return all(_is_intact(target.folder / split, target.store) for split in made["manifests"])
    except (OSError, ValueError):  # no note or a damaged one; UserErrors of manifests, shards and stores
        return False


def _is_intact(folder: Path, store: StoreConfig) -> bool:
    """Verify the shards of one split, and return whether its folder has no other file.

    Raises ManifestError, ShardError or StoreError for a file that is missing or differs.
    """
    column = Column(folder, store=store)
    column.verify()
    expected = {MANIFEST_NAME, RECORDS_NAME, *(shard.name for shard in column.manifest.shards)}
    return all(path.name in expected for path in folder.iterdir())


def _move_to_store(target: ColumnTarget) -> None:
    """Move shards beside their manifests into the store, if there is one: the column may be older than the store."""
    for split in _manifest_digests(target.folder):
        folder = target.folder / split
        for shard in read_manifest(folder).shards:
            if (folder / shard.name).is_file():
                put(target.store, folder, shard)


def _manifest_digests(folder: Path) -> dict[str, str]:
    """Return split -> digest of its manifest, for every split of a column."""
    return {split.name: read_manifest(split).digest for split in sorted(folder.iterdir())}
