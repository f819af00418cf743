"""Read every byte of every column of every split and hold it against manifests and records. Changes nothing unasked."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datasets.shards.manifest import MANIFEST_NAME, RECORDS_NAME, Manifest, ManifestError, read_manifest
from datasets.shards.records import ShardError, read_table, shard_name, shard_number
from datasets.tombstones import DUPLICATE, TAKEN_DOWN, Tombstone, read_tombstones, stay_out
from files.errors import UserError
from files.objects import StoreConfig
from jobs.checks.audit import AuditTask, ColumnShard, Finding, audit_shards
from jobs.cluster.launch import map_tasks
from pipeline.layout import TOMBSTONES, column_folder, columns_of, stage_of
from pipeline.params import Params
from pipeline.progress import printable, track
from pipeline.verbs.takedown import Outcome, remove

_SHOWN = 50


class AuditError(UserError):
    """Records cannot be quarantined; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was read and what is wrong. rejected: reason -> sources that ingest left out, over all splits."""

    splits: tuple[str, ...]
    shards: int
    records: int
    bytes: int
    rejected: Mapping[str, int]
    findings: tuple[Finding, ...]
    quarantined: Outcome | None = None


def run(params: Params, *, quarantine: bool = False) -> Audit:
    """Audit shards/. With `quarantine`, records that restoring cannot mend are taken out, as `takedown` does it.

    Shards in a store are fetched anew, whatever the cache holds.
    Raises AuditError, with nothing changed, if there is nothing to audit, if something else must be restored first, or
    if more records than ingest.max_rejected allows would be gone.
    """
    splits = tuple(sorted(path.name for path in column_folder("image", "").glob("*") if path.is_dir()))
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
    work = map_tasks(audit_shards, tasks, num_workers=params.cluster.num_workers)
    for result in track(work, "audit", len(tasks), "shards"):
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


def _manifests(split: str, findings: list[Finding]) -> dict[str, tuple[Path, Manifest]]:
    """Column -> folder and manifest, images first; columns that cannot be read are among the findings."""
    found = {}
    for column in columns_of(split):
        folder, stage = column_folder(column, split), stage_of(column)
        try:
            manifest = read_manifest(folder, remedy=f"dvc repro {stage}")
            read_table(folder, columns=("key",))
            found[column] = (folder.resolve(), manifest)
        except (ManifestError, ShardError) as error:
            findings.append(Finding(file=str(folder), problem=str(error)))
    return found if "image" in found else {}


def _tasks(
    columns: Mapping[str, tuple[Path, Manifest]], store: StoreConfig, findings: list[Finding]
) -> list[AuditTask]:
    """A task per shard of the images, with the shards of the same number of all columns."""
    shards = {
        column: {shard_number(shard.name): shard for shard in manifest.shards}
        for column, (_, manifest) in columns.items()
    }
    numbers = sorted({number for each in shards.values() for number in each})
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
    """What the manifests and tables say of one another."""
    for column, (folder, manifest) in columns.items():
        expected = {MANIFEST_NAME, RECORDS_NAME, *(shard.name for shard in manifest.shards)}
        for path in sorted(folder.iterdir()):
            if path.name not in expected:
                yield Finding(file=str(path), problem="belongs to no column")
        if (manifest.column, manifest.split) != (column, split):
            problem = f"says it is {manifest.column} of {manifest.split}"
            yield Finding(file=str(folder / MANIFEST_NAME), problem=problem)
        if column == "image":
            yield from _check_images(params, folder, manifest)
        elif manifest.made_from != columns["image"][1].digest:
            problem = f"was made from other images; run: dvc repro {stage_of(column)}"
            yield Finding(file=str(folder / MANIFEST_NAME), problem=problem)


def _check_images(params: Params, folder: Path, manifest: Manifest) -> Iterator[Finding]:
    unusable = sum(reject.reason != TAKEN_DOWN for reject in manifest.rejected)
    total = manifest.records + len(manifest.rejected)
    if unusable > params.ingest.max_rejected * total:
        problem = f"{unusable} of {total} sources were rejected, more than ingest.max_rejected allows"
        yield Finding(file=str(folder / MANIFEST_NAME), problem=problem)
    table = read_table(folder, columns=("key", "source_sha256"))
    out = stay_out(read_tombstones(TOMBSTONES), manifest.dataset)
    digests = table["source_sha256"].cast(pa.binary())
    named = pc.or_(
        pc.is_in(table["key"], pa.array(out.keys, pa.string())), pc.is_in(digests, pa.array(out.digests, pa.binary()))
    )
    for key in table.filter(named)["key"].to_pylist():
        problem = f"has a tombstone in {TOMBSTONES} and is here; run: python -m pipeline takedown"
        yield Finding(file=str(folder), key=key, problem=problem)


def _check_across(images: Mapping[str, tuple[Path, Manifest]]) -> Iterator[Finding]:
    """Keys that occur twice, and pictures of equal bytes on both sides of a split."""
    parts = [
        read_table(folder, columns=("key", "source", "source_sha256")).append_column(
            "split", pa.array([split] * manifest.records, pa.string())
        )
        for split, (folder, manifest) in images.items()
    ]
    if not parts:
        return
    table = pa.concat_tables(parts, promote_options="permissive")
    counts = table.group_by("key").aggregate([("key", "count")])
    twice = counts.filter(pc.greater(counts["key_count"], 1))["key"].combine_chunks()
    for row in table.filter(pc.is_in(table["key"], twice)).to_pylist():
        yield Finding(file=str(images[row["split"]][0]), key=row["key"], problem="is the key of more than one record")
    counts = table.group_by("source_sha256").aggregate([("split", "count_distinct")])
    shared = counts.filter(pc.greater(counts["split_count_distinct"], 1))["source_sha256"].combine_chunks()
    rows = table.filter(pc.is_in(table["source_sha256"], shared)).sort_by("source_sha256").to_pylist()
    for _, group in groupby(rows, key=lambda row: row["source_sha256"]):
        copies = list(group)
        trained = [row for row in copies if row["split"] == "train"]
        evaluated = [row for row in copies if row["split"] != "train"]
        for row in trained or evaluated[1:]:
            other = evaluated[0]
            yield Finding(
                file=str(images[row["split"]][0]),
                key=row["key"],
                problem=f"has the very bytes of {other['key']} of split {other['split']}",
                quarantine=DUPLICATE if trained else "",
            )


def _quarantine(params: Params, audit: Audit) -> Audit:
    """Take out what `takedown` can mend, if nothing else is wrong."""
    chosen = {finding.key: finding for finding in audit.findings if finding.quarantine}
    others = [f for f in audit.findings if not f.quarantine]
    if others:
        raise AuditError(
            f"{len(others)} findings are not about single unusable images, the first: {_line(others[0])}. Restore or "
            "rebuild those first (dvc checkout --force shards, or dvc repro --force <stage>), then quarantine"
        )
    total = audit.records + sum(audit.rejected.values())
    unusable = len(chosen) + sum(count for reason, count in audit.rejected.items() if reason != TAKEN_DOWN)
    if unusable > params.ingest.max_rejected * total:
        raise AuditError(
            f"{unusable} of {total} images would be out, more than ingest.max_rejected = "
            f"{params.ingest.max_rejected:g} allows; nothing was changed. Look at the source, or raise the limit"
        )

    def tombstones(dataset: str, records: pa.Table) -> list[Tombstone]:
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

    return replace(audit, quarantined=remove(params, tombstones))


def render(audit: Audit, *, as_json: bool) -> str:
    """The audit, for people or as JSON."""
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
    "help": "read every byte of the shards and say what is wrong; changes nothing",
    "example": "audit --json",
    "arguments": {
        "--json": {"action": "store_true", "help": "print JSON"},
        "--quarantine": {"action": "store_true", "help": "take unusable images out, as takedown does"},
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Print the audit. Returns 1 if there are findings that were not quarantined."""
    audit = run(params, quarantine=arguments.quarantine)
    print(render(audit, as_json=arguments.json))
    return int(bool(audit.findings) and audit.quarantined is None)
