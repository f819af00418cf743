"""Remove images from all shards, and keep them out of every later ingest."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.tombstones import TAKEN_DOWN, Tombstone, read_tombstones
from files.durable import file_digest
from files.errors import UserError
from files.nearest import suggest
from pipeline.aftermath import Aftermath, check_idle, clear, keep_records, preview
from pipeline.layout import TOMBSTONES
from pipeline.lineage.exposure import find_taken_down
from pipeline.params import Params
from pipeline.progress import span
from pipeline.removal import Choose, Outcome, choose_tombstones, remove
from pipeline.takedown_text import render_all
from pipeline.verbosity import say

_PROBE_SECONDS = 5.0  # for each generator
_MAX_COMPARED = 100_000  # records; among more names, searching for a similar one takes seconds


class TakedownError(UserError):
    """A record cannot be removed. The message says why and what to do."""


def run(
    params: Params, names: Sequence[str], reason: str | None, day: str | None = None, *, this_copy_only: bool = False
) -> Outcome:
    """Remove records from the shards; finish a takedown that was killed; apply tombstones set by hand.

    names: keys, source names, SHA-256 of source or stored bytes, or files with such bytes. All but a key, and the
        SHA-256 of stored bytes, mean all records made from the source.
    reason: why they are removed; needed with names.
    day: date of that decision, YYYY-MM-DD; today if left out.
    this_copy_only: keep other records with the same source bytes. By default they are removed too, unless a key names
        one of several records that were cut from one source.
    Raises TakedownError for an unknown name and bad arguments. Raises RemovalError if there are no shards. Raises
    ShardError, with nothing changed, if a member that stays is damaged or a split would be empty.
    """
    return remove(params, _chooser(names, reason, day, this_copy_only=this_copy_only))


def look(
    params: Params, names: Sequence[str], reason: str | None, day: str | None = None, *, this_copy_only: bool = False
) -> tuple[Outcome, Aftermath]:
    """Return what `run` and `clear` would do. Changes no output. A reason is not needed.

    Raises TakedownError and RemovalError as `run` does.
    """
    keep_records()
    reason = (reason or "").strip() or "none yet"  # it is in no output
    chosen = choose_tombstones(_chooser(names, reason, day, this_copy_only=this_copy_only))
    pictures = find_taken_down([*read_tombstones(TOMBSTONES), *chosen[1]])
    return Outcome(dataset=chosen[0], removed=chosen[2]), preview(params, pictures)


def _chooser(names: Sequence[str], reason: str | None, day: str | None, *, this_copy_only: bool) -> Choose:
    """Return the function that makes the tombstones of some names. Raises TakedownError for bad arguments."""
    if names and not (reason or "").strip():
        raise TakedownError("--reason is missing: say why; tombstones.jsonl keeps it")
    day = day or date.today().isoformat()
    try:
        date.fromisoformat(day)
    except ValueError:
        raise TakedownError(f"--date must be YYYY-MM-DD, got {day!r}") from None

    def choose(dataset: str, records: pa.Table) -> list[Tombstone]:
        return _tombstones(records, names, dataset, reason, day, this_copy_only=this_copy_only)

    return choose


def read_names(names: Sequence[str], path: str | None) -> list[str]:
    """Return names and those of a file, one per line; empty lines and lines that start with # are left out.

    Raises TakedownError if the file cannot be read.
    """
    if path is None:
        return list(names)
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise TakedownError(f"--list {path} cannot be read ({error}); give a text file with a name per line") from error
    return [*names, *(line for line in lines if line and not line.startswith("#"))]


def _tombstones(
    records: pa.Table, names: Sequence[str], dataset: str, reason: str, day: str, *, this_copy_only: bool
) -> list[Tombstone]:
    """Return a tombstone for each record that is named by key, source, digest or file."""
    old = [tombstone for tombstone in read_tombstones(TOMBSTONES) if tombstone.dataset == dataset]
    known = {name for each in old for name in (each.key, each.source, each.source_sha256)}
    tombstones = []
    for name in dict.fromkeys(names):
        by_source, by_key = _rows_of(name, records)
        if not by_source and not by_key and name not in known and _digest_of(name) not in known:
            raise TakedownError(
                f"{name!r} is neither a key nor a source of {dataset}, nor a SHA-256 of one or a file with its bytes"
                f"{_hint(name, records)}"
            )
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


def _rows_of(name: str, records: pa.Table) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records whose source has a name, and those that it names alone: by key, or by their stored bytes."""
    by_source = records.filter(pc.equal(records["source"], name)).to_pylist()
    by_key = records.filter(pc.equal(records["key"], name)).to_pylist()
    if not by_source and not by_key and (digest := _digest_of(name)):
        value = pa.scalar(bytes.fromhex(digest), pa.binary())
        by_source, by_key = (
            records.filter(pc.equal(records[column].cast(pa.binary()), value)).to_pylist()
            for column in ("source_sha256", "sha256")
        )
    return by_source, by_key


def _digest_of(name: str) -> str:
    """Return the SHA-256 that a name is, or that the file of this name has; "" for another name."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return name
    return file_digest(Path(name)) if Path(name).is_file() else ""


def _is_cut(row: dict[str, Any], records: pa.Table) -> bool:
    """Return whether other records were made from the same file, so that its digest names more than this record."""
    return pc.sum(pc.equal(records["source"], row["source"])).as_py() > 1


def _hint(name: str, records: pa.Table) -> str:
    if len(records) > _MAX_COMPARED:
        return ""
    hint = suggest(name, {*records["key"].to_pylist(), *records["source"].to_pylist()}, otherwise="")
    return f"; {hint}" if hint else ""


def price_retraining(params: Params, generators: Sequence[str]) -> dict[str, str]:
    """Take a few steps of generators and return generator -> price of its training, in words.

    generators: those that params.yaml does not list have no price.
    """
    from pipeline.planning import price  # imports torch

    listed = {name: params.generators[name] for name in generators if name in params.generators}
    found = dict.fromkeys(generators, "not in params.yaml, so it has no price")
    if listed:
        for each in price.run(replace(params, generators=listed), seconds=_PROBE_SECONDS).generators:
            hours = each.hours
            found[each.name] = f"{span(3600 * hours.low)} to {span(3600 * hours.high)}" if hours else each.problem
    return found


VERB = {
    "help": "remove images from all shards and keep them out; without names, finish that or apply tombstones.jsonl",
    "example": 'takedown train/beach_0042 --reason "the owner asked for it"',
    "arguments": {
        "names": {"nargs": "*", "metavar": "name", "help": "a record's key, name of its source, SHA-256, or file"},
        "--reason": {"help": "why, in your words; needed with names, but not with --dry-run"},
        "--date": {"help": "when this was decided, YYYY-MM-DD (default: today)"},
        "--list": {"metavar": "FILE", "help": "a text file with further names, one per line"},
        "--dry-run": {"action": "store_true", "help": "say what would be removed, purged, marked and trained again"},
        "--probe": {"action": "store_true", "help": "with --dry-run: take a few steps to price the new trainings"},
        "--this-copy-only": {"action": "store_true", "help": "keep other records with the same bytes"},
        "--json": {"action": "store_true", "help": "print JSON"},
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Remove the images, clear what they reached, and print the changes; or print what would be changed."""
    names = read_names(arguments.names, arguments.list)
    options = (params, names, arguments.reason, arguments.date)
    tell = print if arguments.json else say
    if arguments.dry_run:
        outcome, aftermath = look(*options, this_copy_only=arguments.this_copy_only)
        price = price_retraining(params, aftermath.exposure.generators) if arguments.probe else None
        tell(render_all(outcome, aftermath, price, as_json=arguments.json))
        return 0
    if arguments.probe:
        raise TakedownError("--probe goes with --dry-run")
    keep_records()
    check_idle(params, find_taken_down(_chosen(names, arguments)))
    outcome = run(*options, this_copy_only=arguments.this_copy_only)
    aftermath = clear(params, outcome.dataset, outcome.images or {})
    tell(render_all(outcome, aftermath, None, as_json=arguments.json))
    return 0


def _chosen(names: Sequence[str], arguments: Namespace) -> list[Tombstone]:
    chooser = _chooser(names, arguments.reason, arguments.date, this_copy_only=arguments.this_copy_only)
    return [*read_tombstones(TOMBSTONES), *choose_tombstones(chooser)[1]]
