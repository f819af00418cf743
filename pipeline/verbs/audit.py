"""Check every byte of every column of every split against manifests and records. Only --quarantine changes anything."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datasets.shards.expectation import mismatch
from datasets.shards.manifest import MANIFEST_NAME, RECORDS_NAME, Manifest, ManifestError, read_manifest
from datasets.shards.records import ShardError, read_table, shard_name, shard_number
from datasets.tombstones import DUPLICATE, TAKEN_DOWN, StayOut, Tombstone, read_tombstones, stay_out
from files.addresses import display_address
from files.errors import UserError
from files.objects import StoreConfig
from jobs.checks.audit import AuditTask, ColumnShard, Finding, ShardAudit, audit_shards, check_table
from jobs.cluster.launch import map_tasks
from pipeline.columns import differences, remedy_of
from pipeline.layout import TOMBSTONES, column_folder, columns_of, image_splits
from pipeline.params import Params
from pipeline.progress import printable, track
from pipeline.removal import Outcome, named_records, remove

_SHOWN = 50


class AuditError(UserError):
    """There is nothing to audit, or records cannot be quarantined. The message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    splits: the splits that were read.
    shards, records, bytes: read in total; the shards of one number, over all columns, count once.
    rejected: reason -> number of sources that ingest left out, over all splits.
    findings: the problems, sorted.
    quarantined: the result of the removal; None if nothing was quarantined.
    """

    splits: tuple[str, ...]
    shards: int
    records: int
    bytes: int
    rejected: Mapping[str, int]
    findings: tuple[Finding, ...]
    quarantined: Outcome | None = None


def run(params: Params, *, quarantine: bool = False) -> Audit:
    """Audit shards/. Shards in a store are read from the store, not from the cache.

    quarantine: remove the records that restoring files cannot repair, as `takedown` does.
    Raises AuditError, with nothing changed, if there is nothing to audit, if files must be restored first, or if more
    records would be missing than ingest.max_rejected allows.
    """
    splits = tuple(image_splits(complete_only=False))
    if not splits:
        raise AuditError("shards/image has no splits; run: dvc repro ingest")
    findings: list[Finding] = []
    tasks, rejected = [], Counter()
    manifests = {split: _manifests(split, findings) for split in splits}
    for split, columns in manifests.items():
        findings += _check_split(params, split, columns)
        tasks += _tasks(columns, params.store, findings)
        if "image" in columns:
            rejected.update(reject.reason for reject in columns["image"][1].rejected)
    findings += _check_across({split: columns["image"] for split, columns in manifests.items() if "image" in columns})
    num_records = num_bytes = 0
    for result in track(_audit_all(params, tasks, findings), "audit", len(tasks), "shards"):
        findings += result.findings
        num_records += result.records
        num_bytes += result.bytes
    audit = Audit(
        splits=splits,
        shards=len(tasks),
        records=num_records,
        bytes=num_bytes,
        rejected=dict(sorted(rejected.items())),
        findings=tuple(sorted(set(findings), key=lambda f: (f.file, f.key, f.problem))),
    )
    return _quarantine(params, audit) if quarantine and audit.findings else audit


def _audit_all(params: Params, tasks: Sequence[AuditTask], findings: list[Finding]) -> Iterator[ShardAudit]:
    """Yield the results of all tasks. Once the store does not answer in time, only shards in folders are read.

    findings: gets one finding for all shards that were not read.
    """
    left = list(tasks)
    for result in map_tasks(audit_shards, tasks, num_workers=params.cluster.num_workers):
        left.remove(result.task)
        yield result
        if result.is_silent:
            break
    in_folders = [task.without_store() for task in left]
    if left and in_folders != left:
        findings.append(
            Finding(
                file=display_address(params.store.url),
                problem=f"did not answer in time, so the shards of {len(left)} more numbers were not read from it",
            )
        )
    yield from map_tasks(
        audit_shards, [task for task in in_folders if task.shards], num_workers=params.cluster.num_workers
    )


def _manifests(split: str, findings: list[Finding]) -> dict[str, tuple[Path, Manifest]]:
    """Return column -> absolute folder and manifest of the readable columns, images first.

    findings: gets one finding for each column that cannot be read.
    Returns nothing if the images cannot be read.
    """
    readable = {}
    for column in columns_of(split):
        folder = column_folder(column, split)
        try:
            manifest = read_manifest(folder, remedy=remedy_of(column))
            check_table(folder, manifest, remedy=remedy_of(column))
            readable[column] = (folder.resolve(), manifest)
        except (ManifestError, ShardError) as error:
            findings.append(Finding(file=str(folder), problem=str(error)))
    return readable if "image" in readable else {}


def _tasks(
    columns: Mapping[str, tuple[Path, Manifest]], store: StoreConfig, findings: list[Finding]
) -> list[AuditTask]:
    """Return one task per shard number, with the shards of that number of all columns.

    findings: gets one finding for each shard that a column lacks.
    """
    shards = {
        column: {shard_number(shard.name): shard for shard in manifest.shards}
        for column, (_, manifest) in columns.items()
    }
    numbers = sorted({number for by_number in shards.values() for number in by_number})
    for column, (folder, _) in columns.items():
        findings += [
            Finding(
                file=str(folder / shard_name(column, number)), problem="is not in its manifest; other columns have it"
            )
            for number in numbers
            if number not in shards[column]
        ]
    return [
        AuditTask(
            shards=tuple(
                ColumnShard(
                    folder=folder,
                    column=column,
                    shard=shards[column][number],
                    store=store,
                    num_classes=len(manifest.parameters["classes"]) if "classes" in manifest.parameters else None,
                )
                for column, (folder, manifest) in columns.items()
                if number in shards[column]
            )
        )
        for number in numbers
    ]


def _check_split(params: Params, split: str, columns: Mapping[str, tuple[Path, Manifest]]) -> Iterator[Finding]:
    """Compare the manifests of a split with params.yaml and each other, and the files in its folders with them."""
    for column, (folder, manifest) in columns.items():
        expected = {MANIFEST_NAME, RECORDS_NAME, *(shard.name for shard in manifest.shards)}
        for path in sorted(folder.iterdir()):
            if path.name not in expected:
                yield Finding(file=str(path), problem="belongs to no column")
        if found := list(differences(params, column, split, manifest)):
            yield Finding(file=str(folder / MANIFEST_NAME), problem=mismatch(found, remedy_of(column)))
        if column == "image":
            yield from _check_images(params, folder, manifest)
        elif manifest.made_from != columns["image"][1].digest:
            problem = f"was made from other images; run: {remedy_of(column)}"
            yield Finding(file=str(folder / MANIFEST_NAME), problem=problem)


def _check_images(params: Params, folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Check the share of rejected sources, and that no record has a tombstone."""
    unusable = sum(reject.reason != TAKEN_DOWN for reject in manifest.rejected)
    total = manifest.records + len(manifest.rejected)
    if unusable > params.ingest.max_rejected * total:
        problem = f"{unusable} of {total} sources were rejected, more than ingest.max_rejected allows"
        yield Finding(file=str(folder / MANIFEST_NAME), problem=problem)
    table = read_table(folder, columns=("key", "source_sha256"))
    out = stay_out(read_tombstones(TOMBSTONES), manifest.dataset)
    for key in named_records(table, out)["key"].to_pylist():
        problem = f"has a tombstone in {TOMBSTONES} and is here; run: python -m pipeline takedown"
        yield Finding(file=str(folder), key=key, problem=problem)


def _check_renamed(images: Mapping[str, tuple[Path, Manifest]], records: pa.Table) -> Iterator[Finding]:
    """Find records with the bytes of a tombstone that ingest has met under no name: the picture has a new one.

    records: of all splits, with the columns key, source_sha256 and split.
    """
    dataset = next(iter(images.values()))[1].dataset
    met = {reject.name for _, manifest in images.values() for reject in manifest.rejected}
    keys = set(records["key"].to_pylist())
    lost = [
        each
        for each in read_tombstones(TOMBSTONES)
        if each.dataset == dataset and each.status != DUPLICATE and each.source not in met and each.key not in keys
    ]
    out = StayOut({}, {bytes.fromhex(each.source_sha256): each.status for each in lost if not each.every_copy})
    for row in named_records(records, out).to_pylist():
        problem = f"has the bytes that {TOMBSTONES} keeps out under another key; run: python -m pipeline takedown"
        yield Finding(file=str(images[row["split"]][0]), key=row["key"], problem=f"{problem} {row['key']}")


def _check_across(images: Mapping[str, tuple[Path, Manifest]]) -> Iterator[Finding]:
    """Find keys of several records, and source files with equal bytes in several splits.

    images: split -> folder and manifest of its images.
    """
    tables = [
        read_table(folder, columns=("key", "source", "source_sha256")).append_column(
            "split", pa.array([split] * manifest.records, pa.string())
        )
        for split, (folder, manifest) in images.items()
    ]
    if not tables:
        return
    table = pa.concat_tables(tables, promote_options="permissive")
    yield from _check_renamed(images, table)
    counts = table.group_by("key").aggregate([("key", "count")])
    repeated = counts.filter(pc.greater(counts["key_count"], 1))["key"].combine_chunks()
    for row in table.filter(pc.is_in(table["key"], repeated)).to_pylist():
        yield Finding(file=str(images[row["split"]][0]), key=row["key"], problem="is the key of more than one record")
    counts = table.group_by("source_sha256").aggregate([("split", "count_distinct")])
    shared = counts.filter(pc.greater(counts["split_count_distinct"], 1))["source_sha256"].combine_chunks()
    rows = table.filter(pc.is_in(table["source_sha256"], shared)).sort_by("source_sha256").to_pylist()
    for _, group in groupby(rows, key=lambda row: row["source_sha256"]):
        yield from _check_copies(list(group), images)


def _check_copies(copies: list[dict], images: Mapping[str, tuple[Path, Manifest]]) -> Iterator[Finding]:
    """Report the copies in train, or all but one if none is in train. Only a copy in train can be quarantined.

    copies: rows with equal source bytes, of at least two splits.
    """
    trained = [row for row in copies if row["split"] == "train"]
    evaluated = [row for row in copies if row["split"] != "train"]
    other = evaluated[0]
    for row in trained or evaluated[1:]:
        yield Finding(
            file=str(images[row["split"]][0]),
            key=row["key"],
            problem=f"has the same bytes as {other['key']} of split {other['split']}",
            quarantine=DUPLICATE if trained else "",
        )


def _quarantine(params: Params, audit: Audit) -> Audit:
    """Remove the records that can be quarantined. Raises AuditError if there are other findings or too many records."""
    chosen = {finding.key: finding for finding in audit.findings if finding.quarantine}
    others = [finding for finding in audit.findings if not finding.quarantine]
    if others:
        raise AuditError(
            f"{len(others)} findings are not about single unusable images, the first: {_line(others[0])}. Restore or "
            "rebuild those files first (dvc checkout --force shards, or dvc repro --force <stage>), then quarantine"
        )
    total = audit.records + sum(audit.rejected.values())
    unusable = len(chosen) + sum(count for reason, count in audit.rejected.items() if reason != TAKEN_DOWN)
    if unusable > params.ingest.max_rejected * total:
        raise AuditError(
            f"{unusable} of {total} images would be left out, more than ingest.max_rejected = "
            f"{params.ingest.max_rejected:g} allows; nothing was changed. Look at the source, or raise the limit"
        )

    return replace(audit, quarantined=remove(params, lambda dataset, records: _tombstones(dataset, records, chosen)))


def _tombstones(dataset: str, records: pa.Table, chosen: Mapping[str, Finding]) -> list[Tombstone]:
    """Return a tombstone, of today, for each chosen key."""
    rows = records.filter(pc.is_in(records["key"], pa.array(chosen, pa.string()))).to_pylist()
    return [
        Tombstone(
            dataset=dataset,
            key=row["key"],
            source=row["source"],
            source_sha256=row["source_sha256"].hex(),
            every_copy=False,
            status=chosen[row["key"]].quarantine,
            reason=chosen[row["key"]].problem,
            date=date.today().isoformat(),
        )
        for row in rows
    ]


def render(audit: Audit, *, as_json: bool) -> str:
    """Return the audit as text or as JSON."""
    if as_json:
        return json.dumps(asdict(audit), indent=2)
    rejected = ", ".join(f"{count} {reason}" for reason, count in audit.rejected.items()) or "none"
    lines = [_line(finding) for finding in audit.findings[:_SHOWN]]
    if len(audit.findings) > _SHOWN:
        lines.append(f"and {len(audit.findings) - _SHOWN} more; --json lists all")
    lines.append(
        f"read {audit.bytes:,} bytes: {audit.records:,} records in {len(audit.splits)} splits "
        f"({', '.join(audit.splits)}); left out at ingest: {rejected}; wrong: {len(audit.findings)}"
    )
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    place = f"{finding.file}: {printable(finding.key)}" if finding.key else finding.file
    return f"{place}: {printable(finding.problem)}"


VERB = {
    "help": "read every byte of the shards and list what is wrong; changes nothing",
    "example": "audit --json",
    "arguments": {
        "--json": {"action": "store_true", "help": "print JSON"},
        "--quarantine": {"action": "store_true", "help": "remove unusable images, as takedown does"},
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Print the audit. Returns 1 if there are findings that were not quarantined."""
    audit = run(params, quarantine=arguments.quarantine)
    print(render(audit, as_json=arguments.json))
    return int(bool(audit.findings) and audit.quarantined is None)
