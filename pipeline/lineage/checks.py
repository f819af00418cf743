"""Compare the present outputs, inputs and records of all stages with what the provenance records say of them.

Every file is read again; names, sizes and times prove nothing. Nothing is changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from datasets.shards.manifest import MANIFEST_NAME, RECORDS_NAME, Manifest, ManifestError, parse_manifest
from files.checkout import FOLDERS, ROOT
from files.durable import file_digest
from jobs.runs.history import MANIFESTS, RECEIPTS, STATEMENTS, TAKEDOWNS, list_records
from pipeline.code import LOCK, list_stages, read_declaration
from pipeline.inputs import PARAMS_PREFIX, read_parameters, read_values
from pipeline.layout import GROUP_ROWS, PROVENANCE, record_file
from pipeline.lineage.pictures import read_sums
from pipeline.lineage.records import is_outside, list_outputs, read_record
from pipeline.lineage.statement import Statement, StatementError, parse_statement, portable_value

MISSING, ABSENT = "missing", "no such file"
NOTHING = "nothing"
"""What vouches for a record that neither dvc.lock nor the history has."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison.

    link: the file, parameter or entry that was read.
    expected, found: digests or values.
    by: the record that says what is expected.
    remedy: what to do if they differ.
    """

    link: str
    expected: str
    found: str
    by: str
    remedy: str

    @property
    def is_broken(self) -> bool:
        """Whether the link is not as its record says."""
        return self.expected != self.found


def check_everything() -> Iterator[Check]:
    """Check the history and every stage with an output or a record, in the order of the stages."""
    yield from _check_history()
    for stage, key in _stages_here():
        yield from check_stage(stage, key)


def check_stage(stage: str, key: str) -> Iterator[Check]:
    """Check the record of one stage, then its inputs, then its outputs.

    Inputs of a stage that the checkout does not have any more are not compared: see `is_listed`.
    """
    path = record_file(stage, key)
    name = f"{stage}@{key}" if key else stage
    remedy = f"dvc checkout --force {path}, or dvc repro {name}"
    try:
        statement = read_record(path)
    except StatementError:
        expected, by = _expected_record(path, name)
        found = file_digest(path) if path.is_file() else MISSING
        yield Check(link=str(path), expected=expected or "a provenance record", found=found, by=by, remedy=remedy)
        return
    yield _check_record(path, statement, remedy)
    if is_listed(stage, key):
        yield from _check_inputs(statement, path)
    yield from _check_outputs(statement, path)


def check_manifest(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Check `records.parquet` and the shards of a folder against its manifest, and that there is no other file.

    Shards that are in a store, and not beside the manifest, are left out.
    """
    by, remedy = str(folder / MANIFEST_NAME), f"dvc checkout --force {folder}, or dvc repro"
    expected = {RECORDS_NAME: manifest.records_sha256, **{shard.name: shard.sha256 for shard in manifest.shards}}
    is_in_store = not any((folder / shard.name).exists() for shard in manifest.shards)
    for name, sha256 in expected.items():
        if name == RECORDS_NAME or not is_in_store:
            yield Check(link=str(folder / name), expected=sha256, found=_digest(folder / name), by=by, remedy=remedy)
    for path in sorted(folder.iterdir()):
        if path.name not in (*expected, MANIFEST_NAME):
            yield Check(link=str(path), expected=ABSENT, found=_digest(path), by=by, remedy=f"remove {path}")


def is_listed(stage: str, key: str) -> bool:
    """Return whether params.yaml has the generator or suite of a stage, so that `dvc repro` can run it."""
    block = (read_values() or {}).get("suites" if stage == "suites" else "generators")
    return not key or block is None or key in block


def list_unlisted() -> list[str]:
    """Return the names of stages whose outputs are here, though params.yaml has their generator or suite no more."""
    return [f"{stage}@{key}" for stage, key in _stages_here() if not is_listed(stage, key)]


def _stages_here() -> Iterator[tuple[str, str]]:
    """Yield stage and key of every stage that has an output or a record, in the order of dvc.yaml."""
    for stage in list_stages():
        if "${key}" not in "".join(read_declaration(stage, "${key}").outs):
            if record_file(stage).exists() or list_outputs(stage):
                yield stage, ""
            continue
        outputs = Path({"train": "models", "suites": "suites", "reports": "reports"}.get(stage, "results"))
        made = {path.name for path in outputs.glob("[!.]*")} - {*GROUP_ROWS}
        for key in sorted(made | {path.stem for path in (PROVENANCE / stage).glob("[!.]*.json")}):
            yield stage, key


def _check_record(path: Path, statement: Statement, remedy: str) -> Check:
    """Check that dvc.lock or the history knows a record that can be read."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    is_known = found in _recorded_digests(statement.name) or _locked_digests().get(str(path)) == md5
    expected, by = (found, "the history or dvc.lock") if is_known else _expected_record(path, statement.name)
    if expected.startswith("md5 "):
        found = f"md5 {md5}"
    return Check(link=str(path), expected=expected or found, found=found, by=by, remedy=remedy)


def _expected_record(path: Path, name: str) -> tuple[str, str]:
    """Return the digest that a record must have, and who says so: dvc.lock, or else the newest one of the history.

    Returns "" if neither knows it.
    """
    if locked := _locked_digests().get(str(path)):
        return f"md5 {locked}", "dvc.lock"
    recorded = list(_recorded_digests(name).items())
    return recorded[-1] if recorded else ("", NOTHING)


def _recorded_digests(name: str) -> dict[str, str]:
    """Return digest -> file of its full form, of each portable record of a stage in the history, oldest first."""
    found = {}
    for path in list_records(STATEMENTS):
        if path.stem.rpartition("-")[0] == name:
            with contextlib.suppress(StatementError):  # `_check_history` names it
                portable = parse_statement(path.read_bytes(), str(path)).portable
                found[hashlib.sha256(portable.to_json()).hexdigest()] = _shown(path)
    return found


def _locked_digests() -> dict[str, str]:
    """Return path -> MD5 of every output in dvc.lock."""
    path = Path("dvc.lock")
    return _parse_lock(path.read_text()) if path.is_file() else {}


@functools.lru_cache(maxsize=1)
def _parse_lock(text: str) -> dict[str, str]:
    stages = YAML(typ="safe", pure=True).load(text)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def _check_inputs(statement: Statement, record: Path) -> Iterator[Check]:
    """Compare parameters, code and data of the checkout with those that a stage was run with."""
    remedy = f"put it back as it was, or run: dvc repro {statement.name}"
    declared = read_declaration(statement.stage, statement.key)
    now = {name: portable_value(value) for name, value in read_parameters(declared.params).items()}
    recorded = {f"{PARAMS_PREFIX}{name}": value for name, value in statement.parameters.items()}
    for name in sorted({*now, *recorded}):
        expected, found = (json.dumps(values[name]) if name in values else MISSING for values in (recorded, now))
        yield Check(link=name, expected=expected, found=found, by=str(record), remedy=remedy)
    for resource in statement.dependencies:
        if not is_outside(resource.name):
            is_code = resource.name == LOCK or resource.name.split("/")[0] in FOLDERS
            found = _digest(ROOT / resource.name if is_code else Path(resource.name))
            yield Check(link=resource.name, expected=resource.sha256, found=found, by=str(record), remedy=remedy)


def _check_outputs(statement: Statement, record: Path) -> Iterator[Check]:
    remedy = f"restore it with dvc checkout --force, or run: dvc repro {statement.name}"
    for subject in statement.subjects:
        path = Path(subject.name)
        yield Check(link=subject.name, expected=subject.sha256, found=_digest(path), by=str(record), remedy=remedy)
        if path.name == MANIFEST_NAME and path.is_file():
            try:
                manifest = parse_manifest(path.read_bytes(), path)
            except ManifestError:
                continue  # its digest differs, which is said already
            yield from check_manifest(path.parent, manifest)
    known = {subject.name for subject in statement.subjects}
    for path in list_outputs(statement.stage, statement.key):
        if path.as_posix() not in known:
            yield Check(link=str(path), expected=ABSENT, found=_digest(path), by=str(record), remedy=f"remove {path}")


def _check_history() -> Iterator[Check]:
    """Check that every record of the history has the content that its name says."""
    for kind in (STATEMENTS, RECEIPTS, TAKEDOWNS):
        for path in list_records(kind):
            expected = path.stem.rpartition("-")[2]
            yield Check(
                link=_shown(path), expected=expected, found=file_digest(path), by="its name", remedy=_restore(path)
            )
    for path in list_records(MANIFESTS):
        try:
            found = parse_manifest(path.read_bytes(), path).digest
        except ManifestError:
            found = f"{file_digest(path)}, which is no manifest"
        yield Check(link=_shown(path), expected=path.stem, found=found, by="its name", remedy=_restore(path))
    for path, expected in read_sums().items():
        link, by = _shown(path), f"{path.name.partition('.')[0]}.sha256"
        yield Check(link=link, expected=expected, found=_digest(path), by=by, remedy=_restore(path))


def _shown(path: Path) -> str:
    return str(path.relative_to(path.parents[2]))


def _restore(path: Path) -> str:
    return f"remove {_shown(path)}; an old output whose record it was can no longer be explained"


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else MISSING
