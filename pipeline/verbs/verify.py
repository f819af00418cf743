"""Read outputs, models and records again, and name the first link that is not as it was recorded."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from files.addresses import display_address
from files.errors import UserError
from jobs.runs.history import Version
from jobs.tracking.address import tracking_uri
from pipeline.layout import PROVENANCE
from pipeline.lineage.checks import NOTHING, Check, check_everything, list_unlisted
from pipeline.lineage.registry import check_server, has_server, split_reference
from pipeline.lineage.takedown_checks import check_takedowns
from pipeline.progress import printable

_SHOWN = 20


class VerifyError(UserError):
    """There is nothing to verify. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result.

    checks: number of comparisons.
    broken: those that differ, in the order of the chain.
    notes: what could not be checked, and why.
    """

    checks: int
    broken: tuple[Check, ...]
    notes: tuple[str, ...] = ()


def verify_all() -> Verification:
    """Verify the records, the inputs and outputs of all stages, and every registered version.

    Raises VerifyError if there is no record.
    """
    if not PROVENANCE.is_dir():
        raise VerifyError(f"{PROVENANCE} is missing, so nothing says what the outputs must be; run: dvc repro")
    checks = [*check_everything(), *check_takedowns()]
    alone = [check.link for check in checks if check.by == NOTHING]
    notes = [f"{link}: neither dvc.lock nor the history has this record, so it may have been changed" for link in alone]
    notes += [
        f"{name}: params.yaml has it no more, so its outputs are compared with its record, and its inputs are not"
        for name in list_unlisted()
    ]
    if not has_server():
        notes.append(f"{display_address(tracking_uri())} is missing: no registered version is checked")
        return _result(checks, notes)
    from jobs.tracking import mlflow_registry as registry  # takes a second

    try:
        versions = registry.list_registered()
    except Exception as error:  # every client and store raises its own kinds
        notes.append(f"{registry.reason(error)}: no registered version is checked")
        versions = []
    for version in versions:
        checks += _check_version(version, notes)
    return _result(checks, notes)


def verify_model(reference: str) -> Verification:
    """Verify a registered version, its run, and the data that it was trained on.

    reference: NAME@ALIAS or NAME@NUMBER.
    """
    notes: list[str] = []
    return _result(_check_version(_find(reference), notes), notes)


def verify_rebuild(reference: str) -> Verification:
    """Verify a registered version, and if nothing is broken, make its weights again and compare them.

    reference: NAME@ALIAS or NAME@NUMBER.
    """
    from pipeline.lineage.rebuilding import rebuild  # imports torch

    version, notes = _find(reference), []
    checks = _check_version(version, notes)
    if not any(check.is_broken for check in checks):
        checks += rebuild(version)
    return _result(checks, notes)


def _find(reference: str) -> Version:
    check_server(reference)
    from jobs.tracking import mlflow_registry as registry  # takes a second

    return registry.find_version(*split_reference(reference))


def _check_version(version: Version, notes: list[str]) -> list[Check]:
    from pipeline.lineage.version_checks import VersionChecks

    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        checker = VersionChecks(version, Path(folder))
        checks = list(checker.run())
    notes += checker.notes
    return checks


def _result(checks: list[Check], notes: list[str]) -> Verification:
    return Verification(
        checks=len(checks), broken=tuple(check for check in checks if check.is_broken), notes=tuple(notes)
    )


def render(result: Verification) -> str:
    """Return the first broken link, the others by name, and everything that could not be checked."""
    lines = list(_describe(result))
    lines += [f"not checked: {printable(note)}" for note in dict.fromkeys(result.notes)]
    return "\n".join(lines)


def _describe(result: Verification) -> Iterator[str]:
    if not result.broken:
        yield f"verified: {result.checks:,} links are as they were recorded"
        return
    first, *others = result.broken
    yield f"broken: {printable(first.link)}"
    yield f"  expected {printable(first.expected)}, as {printable(first.by)} says"
    yield f"  found    {printable(first.found)}"
    yield f"  {printable(first.remedy)}"
    if others:
        yield f"{len(others):,} more of {result.checks:,} links differ:"
        yield from (f"  {printable(check.link)}" for check in others[:_SHOWN])
        if len(others) > _SHOWN:
            yield f"  and {len(others) - _SHOWN:,} more; --json lists all"


VERB = {
    "help": "read everything again and name the first link that differs from its record",
    "example": "verify model inpaint-edge_connect@candidate",
    "arguments": {
        "what": {"nargs": "?", "choices": ["all", "model"], "help": "everything here, or one registered version"},
        "version": {"nargs": "?", "help": "a version such as inpaint-lama@candidate or inpaint-lama@3"},
        "--rebuild": {
            "metavar": "VERSION",
            "help": "make the weights of a version again, in a clean clone of its commit, and compare them",
        },
        "--json": {"action": "store_true", "help": "print JSON"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Verify, and print the result. Returns 1 if a link is broken."""
    match arguments.what, arguments.version, arguments.rebuild:
        case "all", None, None:
            result = verify_all()
        case "model", str(version), None:
            result = verify_model(version)
        case None, None, str(version):
            result = verify_rebuild(version)
        case _:
            raise VerifyError("say one of: verify all, verify model VERSION, verify --rebuild VERSION")
    print(json.dumps(asdict(result), indent=2) if arguments.json else render(result))
    return int(bool(result.broken))
