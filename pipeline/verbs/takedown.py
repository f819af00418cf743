"""Take images out of the shards and keep them out: tombstones, and the touched shards of every column written anew."""

from __future__ import annotations

import difflib
import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.removal import (
    commit_removal,
    finish_removal,
    pending_removal,
    removal_tasks,
    rewrite_shard,
    stage_folder,
)
from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import Rejected, read_manifest
from datasets.shards.records import read_table
from datasets.shards.store import ShardStore
from datasets.tombstones import TAKEN_DOWN, StayOut, Tombstone, add_tombstones, read_tombstones, stay_out
from files.errors import UserError
from files.objects import StoreConfig
from jobs.cluster.launch import map_tasks
from jobs.runs.checkpoints import CheckpointError
from jobs.runs.receipt import RECEIPT_NAME, read_receipt
from pipeline.layout import TOMBSTONES, column_folder, columns_of, stage_of
from pipeline.params import Params
from pipeline.progress import printable, track

_STAGING = Path("shards") / ".takedown"
_COMMIT = "what lies there now is what these stages would write, if dvc status had nothing to say of them before"
_KMEANS = """;
      not so the labels by k-means: they keep their clusters, which may have been fitted on the images;
      leave semantics out of the command to have all labels made anew"""
_IN_STORE = (
    "  the old objects are gone from the store, unless it keeps versions: then remove those by its own means;",
    "  other machines that read from it keep fetched shards in store.cache: empty that folder there",
)
_MANY = 100_000  # names among which looking for a similar one takes seconds


class TakedownError(UserError):
    """A record cannot be taken out; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """One record that was taken out."""

    split: str
    key: str
    source: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a takedown changed. folders: folder -> shards written anew or dropped. images: split -> digest of the
    images' manifest before and after. models: generators trained on the images as they were before. store: where the
    shards lie, if in a store."""

    dataset: str
    removed: tuple[Removed, ...] = ()
    folders: dict[str, int] | None = None
    images: dict[str, tuple[str, str]] | None = None
    models: tuple[str, ...] = ()
    store: str | None = None


def run(
    params: Params, names: Sequence[str], reason: str | None, day: str | None = None, *, this_copy_only: bool = False
) -> Outcome:
    """Take records out by key or by source name; finish a takedown that was killed; obey tombstones set by hand.

    reason: needed with names. day: when that was decided, YYYY-MM-DD; today if left out. Naming a source takes all
    records made from it. Whatever else has the same bytes goes too, unless `this_copy_only`, or unless a key names one
    of several records cut from one source.
    Raises TakedownError for a name that is nowhere, and ShardError, with nothing changed, if what is to be kept is
    damaged or a split would be left empty.
    """
    if names and not (reason or "").strip():
        raise TakedownError("--reason is missing: say why, for whoever reads tombstones.jsonl in a year")
    day = day or date.today().isoformat()
    try:
        date.fromisoformat(day)
    except ValueError:
        raise TakedownError(f"--date must be YYYY-MM-DD, got {day!r}") from None
    return remove(
        params, lambda dataset, records: _named(records, names, dataset, reason, day, this_copy_only=this_copy_only)
    )


def remove(params: Params, choose: Callable[[str, pa.Table], Iterable[Tombstone]]) -> Outcome:
    """Set the tombstones that `choose` makes of the data set's name and its records, and take out what they name.

    The records: columns split, key, source, source_sha256.
    """
    if params.store.url:
        ShardStore(params.store).check_writable()
    if interrupted := pending_removal(_STAGING):
        _finish(interrupted, params.store)
    splits = sorted(path.parent.name for path in column_folder("image", "").glob("*/manifest.json"))
    if not splits:
        raise TakedownError("shards/image holds no complete split; run: dvc repro ingest")
    dataset = read_manifest(column_folder("image", splits[0])).dataset
    records = pa.concat_tables([_records(split) for split in splits], promote_options="permissive")
    tombstones = tuple(choose(dataset, records))
    out = stay_out((*read_tombstones(TOMBSTONES), *tombstones), dataset)
    removed = _touched(records, out)
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


def _finish(about: dict[str, Any], store: StoreConfig) -> None:
    """The tombstones first: no record is missing from the shards without one."""
    add_tombstones(TOMBSTONES, (Tombstone(**tombstone) for tombstone in about["tombstones"]))
    finish_removal(_STAGING, store)


def _outcome(about: dict[str, Any]) -> Outcome:
    return Outcome(
        dataset=about["dataset"],
        removed=tuple(Removed(**each) for each in about["removed"]),
        folders=about["folders"],
        images={split: tuple(digests) for split, digests in about["images"].items()},
        models=tuple(about["models"]),
        store=about["store"],
    )


def _records(split: str) -> pa.Table:
    table = read_table(column_folder("image", split), columns=("key", "source", "source_sha256"))
    return table.append_column("split", pa.array([split] * len(table), pa.string()))


def _named(
    records: pa.Table, names: Sequence[str], dataset: str, reason: str, day: str, *, this_copy_only: bool
) -> list[Tombstone]:
    there = read_tombstones(TOMBSTONES)
    known = {name for tombstone in there if tombstone.dataset == dataset for name in (tombstone.key, tombstone.source)}
    tombstones = []
    for name in dict.fromkeys(names):
        by_source = records.filter(pc.equal(records["source"], name)).to_pylist()
        by_key = records.filter(pc.equal(records["key"], name)).to_pylist()
        if not by_source and not by_key and name not in known:
            raise TakedownError(f"{name!r} is neither a key nor a source of {dataset}{_similar(name, records)}")
        for row in by_source or by_key:
            tombstones.append(
                Tombstone(
                    dataset=dataset,
                    key=row["key"],
                    source=row["source"],
                    source_sha256=row["source_sha256"].hex(),
                    every_copy=not this_copy_only and (bool(by_source) or not _is_cut(row, records)),
                    status=TAKEN_DOWN,
                    reason=reason,
                    date=day,
                )
            )
    return tombstones


def _is_cut(row: dict[str, Any], records: pa.Table) -> bool:
    """Whether other records were made from the same file: its digest then stands for more than this record."""
    return pc.sum(pc.equal(records["source"], row["source"])).as_py() > 1


def _similar(name: str, records: pa.Table) -> str:
    if len(records) > _MANY:
        return ""
    near = difflib.get_close_matches(name, {*records["key"].to_pylist(), *records["source"].to_pylist()}, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _touched(records: pa.Table, out: StayOut) -> tuple[Removed, ...]:
    """The records that tombstones name, by key or by digest."""
    by_key = pc.is_in(records["key"], pa.array(out.keys, pa.string()))
    digests = records["source_sha256"].cast(pa.binary())
    by_digest = pc.is_in(digests, pa.array(out.digests, pa.binary()))
    rows = records.filter(pc.or_(by_key, by_digest)).to_pylist()
    return tuple(
        Removed(
            split=row["split"],
            key=row["key"],
            source=row["source"],
            status=out.status(row["key"], row["source_sha256"]),
        )
        for row in rows
    )


def _stage(params: Params, dataset: str, removed: Sequence[Removed]) -> dict[str, Any]:
    """Write new files beside the old ones, and say what they are."""
    splits = sorted({each.split for each in removed})
    folders = {split: _folders_of(split, params.store) for split in splits}
    keys = {split: frozenset(each.key for each in removed if each.split == split) for split in splits}
    tasks = [
        task
        for split in splits
        for folder in folders[split]
        for task in removal_tasks(folder, _STAGING, keys[split], params.store)
    ]
    done: dict[Path, list] = {}
    work = map_tasks(rewrite_shard, tasks, num_workers=params.cluster.num_workers)
    for result in track(work, "takedown", len(tasks), "shards"):
        done.setdefault(result[0].folder, []).append(result)
    images, models = {}, []
    for split in splits:
        before = read_manifest(folders[split][0])
        rejected = [Rejected(name=each.source, reason=each.status) for each in removed if each.split == split]
        image, *columns = folders[split]
        after = stage_folder(image, _STAGING, done[image.resolve()], rejected)
        for folder in columns:
            stage_folder(folder, _STAGING, done[folder.resolve()], made_from=after.digest)
        images[split] = (before.digest, after.digest)
        models += _trained_on(before.digest)
    return {
        "dataset": dataset,
        "removed": [asdict(each) for each in removed],
        "folders": {str(folder): len(done[folder.resolve()]) for split in splits for folder in folders[split]},
        "images": images,
        "models": models,
        "store": params.store.url,
    }


def _folders_of(split: str, store: StoreConfig) -> list[Path]:
    """The images of a split, then the columns made from these very images.

    Raises ManifestError or ShardError for a column that is not whole or was made from others: nothing of it could be
    said to belong to the images that are left.
    """
    image = column_folder("image", split)
    found = [column_folder(column, split) for column in columns_of(split) if column != "image"]
    for folder in found:
        remedy = f"dvc repro {stage_of(folder.parent.name)}"
        check_alignment(
            Column(image, store=store, remedy="dvc repro ingest"), Column(folder, store=store, remedy=remedy)
        )
    return [image, *found]


def _trained_on(digest: str) -> list[str]:
    """Generators whose weights in models/ were trained on the images of this manifest."""
    found = []
    for path in sorted(Path("models").glob(f"*/{RECEIPT_NAME}")):
        try:
            if read_receipt(path.parent).images == digest:
                found.append(path.parent.name)
        except CheckpointError:  # an older receipt; its generator is trained anew in any case
            continue
    return found


def render(outcome: Outcome, *, as_json: bool) -> str:
    """What was done and what is left to do, for people or as JSON."""
    if as_json:
        return json.dumps(asdict(outcome), indent=2)
    if not outcome.removed:
        return f"nothing to do: the shards of {outcome.dataset} hold nothing that {TOMBSTONES} names"
    names = [
        f"{each.split}: {printable(each.key)} ({each.status}, from {printable(each.source)})"
        for each in outcome.removed
    ]
    shards = ", ".join(f"{folder} {count}" for folder, count in outcome.folders.items())
    stages = dict.fromkeys(map(stage_of, columns_of("")))
    lines = [
        f"{len(names)} of {outcome.dataset} taken out, and kept out by {TOMBSTONES}:",
        *(f"  {name}" for name in names[:20]),
        *([f"  and {len(names) - 20} more"] if len(names) > 20 else []),
        f"shards written anew: {shards}",
        f"trained on the old images: {', '.join(outcome.models) or 'no generator in models/'}",
        "",
        "what to do now:",
        f"  dvc commit -f {' '.join(stages)}",
        f"      ({_COMMIT}{_KMEANS if _is_clustered() and 'train' in outcome.images else ''})",
        f"  git add {TOMBSTONES} dvc.lock && git commit",
        "  dvc repro",
        "      (trains and evaluates anew what used the images)",
        "  dvc gc --workspace",
        "      (until then the old shards lie in DVC's cache; with --cloud, in its remote as well)",
        *(_IN_STORE if outcome.store else ()),
    ]
    return "\n".join(lines)


def _is_clustered() -> bool:
    folder = column_folder("semantics", "train")
    return folder.is_dir() and read_manifest(folder).parameters.get("source") == "kmeans"


VERB = {
    "help": "take images out of all shards and keep them out; without names, finish or obey tombstones.jsonl",
    "example": 'takedown train/beach_0042 --reason "the owner asked for it"',
    "arguments": {
        "names": {"nargs": "*", "metavar": "name", "help": "a record's key, or the name of its source"},
        "--reason": {"help": "why, in your words; needed with names"},
        "--date": {"help": "when this was decided, YYYY-MM-DD (default: today)"},
        "--this-copy-only": {"action": "store_true", "help": "leave other records with the same bytes in"},
        "--json": {"action": "store_true", "help": "print JSON"},
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Take the images out and print what was done."""
    outcome = run(params, arguments.names, arguments.reason, arguments.date, this_copy_only=arguments.this_copy_only)
    print(render(outcome, as_json=arguments.json))
    return 0
