"""Write the provenance record of a stage, and check the records of the data that a stage reads.

A record is the file provenance/<stage>.json or provenance/<stage>/<generator>.json, an output of its stage. It is made
from the inputs that `StageInputs` read at the start, and from the outputs that dvc.yaml names. Manifests and receipts
keep their own facts; the record names them by digest and repeats none.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from datasets.shards.manifest import MANIFEST_NAME
from files.checkout import FOLDERS
from files.code_archive import process_code
from files.durable import file_digest, write_durably
from jobs.runs.history import MANIFESTS, RECEIPTS, STATEMENTS, add_record
from pipeline.code import LOCK, list_outs, read_declaration, relevant_changes
from pipeline.inputs import PARAMS_PREFIX, StageInputs
from pipeline.layout import PROVENANCE, TOMBSTONES, record_file
from pipeline.lineage.environments import describe_environment
from pipeline.lineage.statement import Resource, Run, Statement, StatementError, parse_statement, portable_value

_RECEIPT_NAME = "receipt.json"  # not imported from jobs/runs/receipt.py, which imports torch


def write_record(inputs: StageInputs, sources: Mapping[str, str] | None = None) -> Statement:
    """Write the record of a stage whose outputs are in place, and add it and the records beside them to the history.

    inputs: of the stage, at its start.
    sources: archives and list files outside the checkout that it read: name -> SHA-256.
    Returns the full form.
    """
    declared = read_declaration(inputs.stage, inputs.key)
    data = {name: value for name, value in inputs.values.items() if not name.startswith(PARAMS_PREFIX)}
    parameters = {
        name.removeprefix(PARAMS_PREFIX): portable_value(value)
        for name, value in inputs.values.items()
        if name.startswith(PARAMS_PREFIX)
    }
    statement = Statement(
        stage=inputs.stage,
        key=inputs.key,
        command=declared.command,
        parameters=parameters,
        subjects=tuple(describe_file(path) for path in list_outputs(inputs.stage, inputs.key)),
        dependencies=(
            *(Resource(name=name, sha256=digest) for name, digest in sorted((sources or {}).items())),
            *(_with_manifest(Path(name), digest) for name, digest in data.items()),
            *(Resource(name=name, sha256=digest) for name, digest in inputs.code.items()),
        ),
    )
    return save(statement)


def save(statement: Statement) -> Statement:
    """Write a portable statement as the record of its stage, and add its full form to the history. Returns that."""
    write_durably(record_file(statement.stage, statement.key), statement.to_json())
    full = replace(statement, run=_describe_run(statement))
    for subject in statement.subjects:
        path = Path(subject.name)
        if path.name == MANIFEST_NAME:
            add_record(MANIFESTS, subject.manifest, path.read_bytes())
        elif path.name == _RECEIPT_NAME:
            add_record(RECEIPTS, subject.sha256, path.read_bytes())
    content = full.to_json()
    add_record(STATEMENTS, f"{full.name}-{hashlib.sha256(content).hexdigest()}", content)
    return full


def list_outputs(stage: str, key: str = "") -> list[Path]:
    """Return the files below the outputs of a stage, but for its record, sorted. A manifest stands for its folder."""
    record = record_file(stage, key)
    return [path for out in read_declaration(stage, key).outs for path in _list_files(Path(out)) if path != record]


def describe_file(path: Path) -> Resource:
    """Return a file by its present content."""
    return _with_manifest(path, file_digest(path))


def read_records() -> dict[Path, Statement]:
    """Return the records of provenance/ by their path. Raises StatementError for one that is damaged."""
    return {path: read_record(path) for path in sorted(PROVENANCE.rglob("[!.]*.json"))}


def read_record(path: Path) -> Statement:
    """Read the record in a file of provenance/. Raises StatementError if it is missing or damaged."""
    name = "@".join(path.relative_to(PROVENANCE).with_suffix("").parts)
    remedy = f"dvc repro {name}"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StatementError(f"{path} is missing, the provenance record of {name}; run: {remedy}") from None
    return parse_statement(content, str(path), remedy)


def check_records(inputs: StageInputs) -> None:
    """Check that a record names every file of data that a stage reads, with the digest that the file has.

    Raises StatementError that names the file and both digests.
    """
    made = {name: value for name, value in inputs.values.items() if name.split("/")[0] in _output_folders()}
    if not made:
        return
    known = {subject.name: (subject, path) for path, record in read_records().items() for subject in record.subjects}
    for name, digest in made.items():
        if name not in known:
            raise StatementError(f"no record in {PROVENANCE} names {name}; write it with its record: dvc repro")
        subject, path = known[name]
        if subject.sha256 != digest:
            raise StatementError(f"{name} has digest {digest}, {path} says {subject.sha256}; run: dvc repro")


def renew_records(stages: tuple[str, ...]) -> None:
    """Rewrite the records of stages whose outputs another verb has changed, such as a removal of images.

    stages: names in dvc.yaml, in the order in which they read each other. Code and parameters stay those of the stage;
    data and outputs are read again. A stage without a record is left out.
    """
    for stage in stages:
        path = record_file(stage)
        if path.is_file():
            old = read_record(path)
            subjects = tuple(describe_file(path) for path in list_outputs(stage))
            data = set(read_declaration(stage).data)
            is_data = {dep.name: any(Path(dep.name).is_relative_to(name) for name in data) for dep in old.dependencies}
            kept = (dep for dep in old.dependencies if not is_data[dep.name] or Path(dep.name).is_file())
            dependencies = tuple(describe_file(Path(dep.name)) if is_data[dep.name] else dep for dep in kept)
            save(replace(old, subjects=subjects, dependencies=dependencies))


def is_outside(name: str) -> bool:
    """Return whether a dependency of a record is a file outside the checkout: an archive of the data set."""
    return name.split("/")[0] not in (*FOLDERS, *_output_folders()) and name not in (LOCK, str(TOMBSTONES))


@functools.cache
def _output_folders() -> set[str]:
    return {out.split("/")[0] for out in list_outs()}


def _list_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif (path / MANIFEST_NAME).is_file():
        yield path / MANIFEST_NAME
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _list_files(child)


def _with_manifest(path: Path, sha256: str) -> Resource:
    manifest = json.loads(path.read_bytes())["digest"] if path.name == MANIFEST_NAME else ""
    return Resource(name=path.as_posix(), sha256=sha256, manifest=manifest)


def _describe_run(statement: Statement) -> Run:
    code = process_code()
    return Run(
        invocation=uuid.uuid4().hex,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=code.commit,
        changes=relevant_changes(statement.stage, statement.key, code.changes),
        environment=describe_environment(),
    )
