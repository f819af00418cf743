"""Remove images from all shards, and keep them out of every later ingest."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.shards.manifest import read_manifest
from datasets.tombstones import TAKEN_DOWN, Tombstone, read_tombstones
from files.errors import UserError
from files.nearest import suggest
from pipeline.layout import TOMBSTONES, column_folder, columns_of, stage_of
from pipeline.params import Params
from pipeline.progress import printable
from pipeline.removal import Outcome, remove
from pipeline.verbosity import say

_SHOWN = 20  # names of removed records
_COMMIT = "the shards are those that these stages would write now, if dvc status reported no change before"
_KMEANS = """;
      except for labels by k-means: they keep their clusters, which may have been fitted on the images;
      leave semantics out of the command to compute all labels again"""
_IN_STORE = (
    "  the old objects are removed from the store; if it keeps versions, remove those with its own tools;",
    "  other machines that read from it have fetched shards in store.cache: empty that folder there",
)
_MAX_COMPARED = 100_000  # records; among more names, searching for a similar one takes seconds


class TakedownError(UserError):
    """A record cannot be removed. The message says why and what to do."""


def run(
    params: Params, names: Sequence[str], reason: str | None, day: str | None = None, *, this_copy_only: bool = False
) -> Outcome:
    """Remove records by key or by source name; finish a takedown that was killed; apply tombstones set by hand.

    names: keys or source names; a source name means all records made from it.
    reason: why they are removed; needed with names.
    day: date of that decision, YYYY-MM-DD; today if left out.
    this_copy_only: keep other records with the same source bytes. By default they are removed too, unless a key names
        one of several records that were cut from one source.
    Raises TakedownError for an unknown name and bad arguments. Raises RemovalError if there are no shards. Raises
    ShardError, with nothing changed, if a member that stays is damaged or a split would be empty.
    """
    if names and not (reason or "").strip():
        raise TakedownError("--reason is missing: say why; tombstones.jsonl keeps it")
    day = day or date.today().isoformat()
    try:
        date.fromisoformat(day)
    except ValueError:
        raise TakedownError(f"--date must be YYYY-MM-DD, got {day!r}") from None

    def choose(dataset: str, records: pa.Table) -> list[Tombstone]:
        return _tombstones(records, names, dataset, reason, day, this_copy_only=this_copy_only)

    return remove(params, choose)


def _tombstones(
    records: pa.Table, names: Sequence[str], dataset: str, reason: str, day: str, *, this_copy_only: bool
) -> list[Tombstone]:
    """Return a tombstone for each record that is named by its key or its source."""
    old = read_tombstones(TOMBSTONES)
    known = {name for tombstone in old if tombstone.dataset == dataset for name in (tombstone.key, tombstone.source)}
    tombstones = []
    for name in dict.fromkeys(names):
        by_source = records.filter(pc.equal(records["source"], name)).to_pylist()
        by_key = records.filter(pc.equal(records["key"], name)).to_pylist()
        if not by_source and not by_key and name not in known:
            raise TakedownError(f"{name!r} is neither a key nor a source of {dataset}{_hint(name, records)}")
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
    """Return whether other records were made from the same file, so that its digest names more than this record."""
    return pc.sum(pc.equal(records["source"], row["source"])).as_py() > 1


def _hint(name: str, records: pa.Table) -> str:
    if len(records) > _MAX_COMPARED:
        return ""
    hint = suggest(name, {*records["key"].to_pylist(), *records["source"].to_pylist()}, otherwise="")
    return f"; {hint}" if hint else ""


def render(outcome: Outcome, *, as_json: bool) -> str:
    """Return the changes and the next commands, as text or as JSON."""
    if as_json:
        return json.dumps(asdict(outcome), indent=2)
    if not outcome.removed:
        return f"nothing to do: the shards of {outcome.dataset} hold no record that {TOMBSTONES} names"
    names = [
        f"{record.split}: {printable(record.key)} ({record.status}, from {printable(record.source)})"
        for record in outcome.removed
    ]
    shards = ", ".join(f"{folder} {count}" for folder, count in outcome.folders.items())
    stages = dict.fromkeys(map(stage_of, columns_of("")))
    lines = [
        f"{len(names)} of {outcome.dataset} removed, and kept out by {TOMBSTONES}:",
        *(f"  {name}" for name in names[:_SHOWN]),
        *([f"  and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []),
        f"shards rewritten: {shards}",
        f"trained on the old images: {', '.join(outcome.models) or 'no generator in models/'}",
        "",
        "what to do now:",
        f"  dvc commit -f {' '.join(stages)}",
        f"      ({_COMMIT}{_KMEANS if _has_clusters() and 'train' in outcome.images else ''})",
        f"  git add {TOMBSTONES} dvc.lock && git commit",
        "  dvc repro",
        "      (trains and evaluates again what used the images)",
        "  dvc gc --workspace",
        "      (until then DVC's cache holds the old shards; --cloud removes them from its remote, too)",
        *(_IN_STORE if outcome.store else ()),
    ]
    return "\n".join(lines)


def _has_clusters() -> bool:
    """Return whether the labels of train are clusters by k-means."""
    folder = column_folder("semantics", "train")
    return folder.is_dir() and read_manifest(folder).parameters.get("source") == "kmeans"


VERB = {
    "help": "remove images from all shards and keep them out; without names, finish that or apply tombstones.jsonl",
    "example": 'takedown train/beach_0042 --reason "the owner asked for it"',
    "arguments": {
        "names": {"nargs": "*", "metavar": "name", "help": "a record's key, or the name of its source"},
        "--reason": {"help": "why, in your words; needed with names"},
        "--date": {"help": "when this was decided, YYYY-MM-DD (default: today)"},
        "--this-copy-only": {"action": "store_true", "help": "keep other records with the same bytes"},
        "--json": {"action": "store_true", "help": "print JSON"},
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Remove the images and print the changes."""
    outcome = run(params, arguments.names, arguments.reason, arguments.date, this_copy_only=arguments.this_copy_only)
    tell = print if arguments.json else say
    tell(render(outcome, as_json=arguments.json))
    return 0
