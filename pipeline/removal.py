"""Remove records from the shards of every column, with a tombstone for each, for all verbs that do so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.removal import (
    RemovalTask,
    commit_removal,
    finish_removal,
    pending_removal,
    removal_tasks,
    rewrite_shard,
    stage_folder,
)
from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import Expectation
from datasets.shards.manifest import Rejected, read_manifest
from datasets.shards.records import read_table
from datasets.shards.store import ShardStore
from datasets.tombstones import StayOut, Tombstone, add_tombstones, read_tombstones, stay_out
from files.errors import UserError
from files.objects import StoreConfig
from jobs.cluster.launch import map_tasks
from jobs.runs.folder import CheckpointError
from jobs.runs.receipt import RECEIPT_NAME, read_receipt
from pipeline.columns import remedy_of
from pipeline.labels import refresh_label_files
from pipeline.layout import TOMBSTONES, column_folder, columns_of, image_splits
from pipeline.lineage.pictures import index_images
from pipeline.lineage.records import renew_records
from pipeline.params import Params
from pipeline.progress import track
from pipeline.writing import hold_columns

_STAGING = Path("shards") / ".takedown"


class RemovalError(UserError):
    """There are no shards to remove records from. The message says what to run."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """One record that was removed.

    status: one of `datasets.tombstones.STATUSES`.
    """

    split: str
    key: str
    source: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a removal.

    dataset: name of the data set.
    removed: the records that are gone.
    folders: folder -> number of its shards that were rewritten or removed; None if nothing was removed.
    images: split -> digests of the images' manifest before and after; None if nothing was removed.
    models: generators in models/ that were trained on the old images.
    store: address of the store that the shards are in; None if they are in folders.
    """

    dataset: str
    removed: tuple[Removed, ...] = ()
    folders: dict[str, int] | None = None
    images: dict[str, tuple[str, str]] | None = None
    models: tuple[str, ...] = ()
    store: str | None = None


Choose = Callable[[str, pa.Table], Iterable[Tombstone]]


def choose_tombstones(choose: Choose) -> tuple[str, tuple[Tombstone, ...], tuple[Removed, ...]]:
    """Return the data set, the new tombstones, and the records that these and the old tombstones remove.

    choose: see `remove`.
    Raises RemovalError if there are no shards.
    """
    splits = image_splits()
    if not splits:
        raise RemovalError("shards/image holds no complete split; run: dvc repro ingest")
    dataset = _dataset_of(splits)
    records = pa.concat_tables([_records(split) for split in splits], promote_options="permissive")
    tombstones = tuple(choose(dataset, records))
    out = stay_out((*read_tombstones(TOMBSTONES), *tombstones), dataset)
    removed = tuple(
        Removed(
            split=row["split"],
            key=row["key"],
            source=row["source"],
            status=out.status(row["key"], row["source_sha256"]),
        )
        for row in named_records(records, out).to_pylist()
    )
    return dataset, tombstones, removed


@hold_columns("image", "edges", "semantics", "mask")
def remove(params: Params, choose: Choose) -> Outcome:
    """Add tombstones and remove every record that a tombstone names. First finishes a removal that was killed.

    choose: called with the name of the data set and a table of its records, with the columns split, key, source and
        source_sha256 and sha256; returns the new tombstones.
    Raises RemovalError if there are no shards. Raises ShardError, with nothing changed, if a member that stays is
    damaged or a split would be empty.
    """
    if params.store.url:
        ShardStore(params.store).check_writable()
    if interrupted := pending_removal(_STAGING):
        _finish(interrupted, params.store)
    dataset, tombstones, removed = choose_tombstones(choose)
    if not removed:
        add_tombstones(TOMBSTONES, tombstones)
        return _outcome(interrupted) if interrupted else Outcome(dataset=dataset)
    try:
        about = _stage(params, dataset, removed) | {"tombstones": [asdict(tombstone) for tombstone in tombstones]}
        commit_removal(_STAGING, [Path(folder) for folder in about["folders"]], about)
    except Exception:
        shutil.rmtree(_STAGING, ignore_errors=True)
        raise
    _finish(about, params.store)
    return _outcome(about)


def _dataset_of(splits: Sequence[str]) -> str:
    """Return the data set of the images, after a check that each folder holds the split of its name of this data set.

    Settings are not compared: an image can be removed from any shards.
    """
    remedy = remedy_of("image")
    manifests = {split: read_manifest(column_folder("image", split), remedy=remedy) for split in splits}
    dataset = manifests[splits[0]].dataset
    for split, manifest in manifests.items():
        named = Expectation(dataset=dataset, split=split, column="image")
        named.check(manifest, column_folder("image", split), remedy)
    return dataset


def _finish(about: dict[str, Any], store: StoreConfig) -> None:
    # Tombstones first: at no time may a record be missing from the shards without one.
    add_tombstones(TOMBSTONES, (Tombstone(**tombstone) for tombstone in about["tombstones"]))
    finish_removal(_STAGING, store)
    refresh_label_files()
    renew_records(("ingest", "edges", "semantics", "masks"))
    index_images()


def _outcome(about: dict[str, Any]) -> Outcome:
    return Outcome(
        dataset=about["dataset"],
        removed=tuple(Removed(**record) for record in about["removed"]),
        folders=about["folders"],
        images={split: tuple(digests) for split, digests in about["images"].items()},
        models=tuple(about["models"]),
        store=about["store"],
    )


def _records(split: str) -> pa.Table:
    table = read_table(column_folder("image", split), columns=("key", "source", "source_sha256", "sha256"))
    return table.append_column("split", pa.array([split] * len(table), pa.string()))


def named_records(records: pa.Table, out: StayOut) -> pa.Table:
    """Return the rows that tombstones name, by key or by the digest of their source.

    records: a table with the columns key and source_sha256.
    """
    by_key = pc.is_in(records["key"], pa.array(out.keys, pa.string()))
    digests = records["source_sha256"].cast(pa.binary())
    return records.filter(pc.or_(by_key, pc.is_in(digests, pa.array(out.digests, pa.binary()))))


def _stage(params: Params, dataset: str, removed: Sequence[Removed]) -> dict[str, Any]:
    """Write all new files into the staging folder. Returns the fields of the `Outcome` as plain data."""
    splits = sorted({record.split for record in removed})
    folders = {split: _folders_of(split, params.store) for split in splits}
    rewritten = _rewrite_shards(params, folders, removed)
    images, models = {}, []
    for split in splits:
        image, *columns = folders[split]
        before = read_manifest(image)
        rejected = [Rejected(name=record.source, reason=record.status) for record in removed if record.split == split]
        after = stage_folder(image, _STAGING, rewritten[image.resolve()], rejected)
        for folder in columns:
            stage_folder(folder, _STAGING, rewritten[folder.resolve()], made_from=after.digest)
        images[split] = (before.digest, after.digest)
        models += _trained_on(before.digest)
    return {
        "dataset": dataset,
        "removed": [asdict(record) for record in removed],
        "folders": {str(folder): len(rewritten[folder.resolve()]) for split in splits for folder in folders[split]},
        "images": images,
        "models": models,
        "store": params.store.url,
    }


def _rewrite_shards(
    params: Params, folders: dict[str, list[Path]], removed: Sequence[Removed]
) -> dict[Path, list[tuple]]:
    """Rewrite all shards that hold a removed record.

    folders: split -> folders of its columns.
    Returns absolute folder -> results of `rewrite_shard`.
    """
    tasks: list[RemovalTask] = []
    for split, columns in folders.items():
        keys = frozenset(record.key for record in removed if record.split == split)
        for folder in columns:
            tasks += removal_tasks(folder, _STAGING, keys, params.store)
    rewritten: dict[Path, list[tuple]] = {}
    work = map_tasks(rewrite_shard, tasks, num_workers=params.cluster.num_workers)
    for result in track(work, "takedown", len(tasks), "shards"):
        rewritten.setdefault(result[0].folder, []).append(result)
    return rewritten


def _folders_of(split: str, store: StoreConfig) -> list[Path]:
    """Return the folder of a split's images, then those of the columns that were made from these images.

    Raises ManifestError or ShardError for a column that is incomplete, has another name or split, or was made from
    other images, because its shards could not belong to the images that stay.
    """
    image = column_folder("image", split)
    folders = [column_folder(column, split) for column in columns_of(split) if column != "image"]
    images = Column(image, store=store, remedy=remedy_of("image"))
    for folder in folders:
        column = folder.parent.name
        named = Expectation(split=split, column=column)
        check_alignment(images, Column(folder, store=store, remedy=remedy_of(column), expected=named))
    return [image, *folders]


def _trained_on(digest: str) -> list[str]:
    """Return the generators whose weights in models/ were trained on the images of this manifest."""
    generators = []
    for path in sorted(Path("models").glob(f"*/{RECEIPT_NAME}")):
        try:
            if read_receipt(path.parent).images == digest:
                generators.append(path.parent.name)
        except CheckpointError:  # a receipt of an older version, whose generator is trained again in any case
            continue
    return generators
