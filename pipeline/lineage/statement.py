"""The provenance record of a stage: an in-toto statement with a SLSA provenance predicate, as JSON.

Specifications: in-toto attestation framework, Statement v1; SLSA v1.0, Provenance. Any reader of these formats can read
the records. A record names all outputs of one run of one stage as subjects.

There are two forms of it. The portable form is an output of the stage in DVC. It says nothing about the time, the
machine or the commit: equal inputs give equal bytes on every machine. The full form adds these; it is kept in the
history and in registered models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from files.addresses import without_secrets
from files.errors import UserError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:inpaint-foundry:stage:1"
BUILDER = "urn:inpaint-foundry:pipeline"


class StatementError(UserError):
    """A provenance record is missing or damaged, or does not describe the file beside it."""


class Resource(NamedTuple):
    """A file by content. A tuple, because an answer reads tens of thousands of them.

    name: its path in the checkout, or the name of a source.
    sha256: of its bytes, in hex.
    manifest: of a manifest, the digest that other records name it by; "" for any other file.
    """

    name: str
    sha256: str
    manifest: str = ""

    def to_tree(self) -> dict[str, Any]:
        """Return the resource as a ResourceDescriptor of in-toto."""
        notes = {"annotations": {"manifest": self.manifest}} if self.manifest else {}
        return {"name": self.name, "digest": {"sha256": self.sha256}, **notes}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Resource:
        """Read a ResourceDescriptor."""
        return cls(
            name=tree["name"],
            sha256=tree["digest"]["sha256"],
            manifest=tree.get("annotations", {}).get("manifest", ""),
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """The facts of one run of a stage that do not decide its outputs on a CPU.

    invocation: an id that no other run has.
    finished: time in UTC, as RFC 3339.
    commit: of git; "unknown" without git.
    changes: inputs of the stages that differ from the commit; None if that is not known.
    environment: versions and processor of the machine, as texts by name.
    """

    invocation: str
    finished: str
    commit: str
    changes: tuple[str, ...] | None
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What one stage made, of what, and how.

    stage, key: name in dvc.yaml, and the generator of a stage that has one variant per generator.
    command: the command line.
    parameters: dotted key of params.yaml -> value, of all keys that the stage declares.
    subjects: the outputs. The manifest of a folder stands for the files that it lists.
    dependencies: data, code and lock of packages that the outputs were made from.
    run: None in the portable form.
    """

    stage: str
    key: str
    command: str
    parameters: Mapping[str, Any]
    subjects: tuple[Resource, ...]
    dependencies: tuple[Resource, ...]
    run: Run | None = None

    @property
    def name(self) -> str:
        """The stage as DVC names it, such as train@edge_connect."""
        return f"{self.stage}@{self.key}" if self.key else self.stage

    @property
    def portable(self) -> Statement:
        """The same statement without its run."""
        return replace(self, run=None)

    def subject(self, name: str) -> Resource | None:
        """Return the output of a name; None if there is none."""
        return next((subject for subject in self.subjects if subject.name == name), None)

    def to_json(self) -> bytes:
        """Return the bytes of the record's file. Equal statements have equal bytes."""
        definition = {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "stage": self.stage,
                "key": self.key,
                "command": self.command,
                "parameters": dict(self.parameters),
            },
            "resolvedDependencies": [resource.to_tree() for resource in self.dependencies],
        }
        details: dict[str, Any] = {"builder": {"id": BUILDER}}
        if self.run:
            commit = {"uri": "git", "digest": {"gitCommit": self.run.commit}}
            changes = None if self.run.changes is None else list(self.run.changes)
            definition["resolvedDependencies"].append({**commit, "annotations": {"changes": changes}})
            details["builder"]["version"] = dict(self.run.environment)
            details["metadata"] = {"invocationId": self.run.invocation, "finishedOn": self.run.finished}
        tree = {
            "_type": STATEMENT_TYPE,
            "subject": [resource.to_tree() for resource in self.subjects],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"buildDefinition": definition, "runDetails": details},
        }
        return (json.dumps(tree, indent=1, sort_keys=True) + "\n").encode()


def parse_statement(content: bytes, place: str, remedy: str = "dvc repro", *, is_exact: bool = True) -> Statement:
    """Read a record of either form.

    place: where the content is from, for error messages.
    remedy: command that writes it again.
    is_exact: whether the bytes must be those that `to_json` gives, which takes most of the time.
    Raises StatementError, in one line, for anything else.
    """
    try:
        statement = _parse(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StatementError(f"{place} is not a provenance record ({type(error).__name__}); run: {remedy}") from error
    if is_exact and statement.to_json() != content:
        raise StatementError(f"{place} was edited: it is not written as records are; run: {remedy}")
    return statement


def _parse(tree: Mapping[str, Any]) -> Statement:
    definition, details = tree["predicate"]["buildDefinition"], tree["predicate"]["runDetails"]
    external, dependencies = definition["externalParameters"], definition["resolvedDependencies"]
    run = None
    if "metadata" in details:
        *dependencies, commit = dependencies
        changes = commit["annotations"]["changes"]
        run = Run(
            invocation=details["metadata"]["invocationId"],
            finished=details["metadata"]["finishedOn"],
            commit=commit["digest"]["gitCommit"],
            changes=None if changes is None else tuple(changes),
            environment=details["builder"]["version"],
        )
    return Statement(
        stage=external["stage"],
        key=external["key"],
        command=external["command"],
        parameters=external["parameters"],
        subjects=tuple(map(Resource.from_tree, tree["subject"])),
        dependencies=tuple(map(Resource.from_tree, dependencies)),
        run=run,
    )


def portable_value(value: Any) -> Any:
    """Return a value of params.yaml without what is of one machine or secret.

    Of an absolute path only the last part is kept: the digests in the record say which files it led to. Of an address
    the password and the query are left out.
    """
    if isinstance(value, str):
        return f".../{Path(value).name}" if value.startswith(("/", "~")) else without_secrets(value)
    if isinstance(value, Mapping):
        return {name: portable_value(child) for name, child in value.items()}
    return [portable_value(child) for child in value] if isinstance(value, list | tuple) else value
