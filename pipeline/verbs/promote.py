"""Make a registered version the champion of its generator, if nothing speaks against it."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from files.errors import UserError
from jobs.runs.history import Version, add_version
from jobs.tracking import mlflow_registry as registry
from jobs.tracking.model_files import ModelError
from pipeline.lineage.evaluations import read_evaluations, renew_card
from pipeline.lineage.promotion import Assessed, find_refusals
from pipeline.lineage.registry import check_server, split_reference
from pipeline.lineage.settings import PromoteConfig
from pipeline.lineage.version_checks import VersionChecks
from pipeline.params import Params
from pipeline.progress import printable
from pipeline.verbosity import say

CHAMPION, CANDIDATE = "champion", "candidate"


class PromotionError(UserError):
    """A version is not promoted. The message has every reason."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A promotion that was made.

    before: the version that had the alias; None if there was none.
    notes: what could not be checked and why.
    """

    version: Version
    alias: str
    before: Version | None
    notes: tuple[str, ...]


def run(rules: PromoteConfig, reference: str, alias: str = CHAMPION) -> Promotion:
    """Check a registered version and give it an alias.

    rules: of this project.
    reference: NAME, NAME@ALIAS or NAME@NUMBER; NAME alone means its candidate.
    alias: CHAMPION or CANDIDATE. A candidate is not compared with the champion.
    Raises PromotionError with every reason against it; ModelError if there is no such version.
    """
    check_server(reference)
    version = registry.find_version(*split_reference(reference if "@" in reference else f"{reference}@{CANDIDATE}"))
    before = _holder(version.name, alias)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="promote-") as folder:
        checks = VersionChecks(version, Path(folder))
        broken = [check for check in checks.run() if check.is_broken]
        notes += checks.notes
        champion = None
        if alias == CHAMPION and before and before.version != version.version:
            champion = Assessed(version=before, evaluations=read_evaluations(before))
        assessed = Assessed(version=version, broken=broken, evaluations=read_evaluations(version))
        if refusals := list(find_refusals(assessed, champion, rules)):
            raise PromotionError(f"{assessed.title} is not promoted: {printable('; and '.join(refusals))}")
        (receipt,) = Path(folder).rglob("data/*/receipt.json")
        registry.set_version_tags(version, {f"{alias}_since": date.today().isoformat()})
        renew_card(version, json.loads(receipt.read_bytes()))
    add_version(version)
    registry.move_alias(version, alias)
    return Promotion(version=version, alias=alias, before=before, notes=tuple(notes))


def _holder(name: str, alias: str) -> Version | None:
    """Return the version that has an alias; None if none has it."""
    try:
        return registry.find_version(name, alias)
    except ModelError:
        return None


def render(promotion: Promotion) -> str:
    """Return what was done, and what could not be checked."""
    version, before = promotion.version, promotion.before
    replaced = f", in place of version {before.version}" if before and before.version != version.version else ""
    lines = [f"{version.name}@{version.version} is the {promotion.alias} now{replaced}"]
    return "\n".join([*lines, *(f"not checked: {printable(note)}" for note in promotion.notes)])


VERB = {
    "help": "make a registered version the champion, if its lineage is whole and its figures are no worse",
    "example": "promote inpaint-edge_connect@candidate",
    "arguments": {
        "version": {
            "help": "a version such as inpaint-lama@candidate or inpaint-lama@3; inpaint-lama is its candidate"
        },
        "--to": {
            "choices": ["champion", "candidate"],
            "default": "champion",
            "help": "the alias that it gets (default: champion)",
        },
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Promote a version and say so."""
    say(render(run(params.promote, arguments.version, arguments.to)))
    return 0
