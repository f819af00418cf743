"""Attach the evaluations of a registered version to it, and read them back."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from files.durable import file_digest
from files.errors import UserError
from jobs.evaluation.results import Summary, read_summary
from jobs.runs.history import Version
from jobs.tracking import mlflow_registry as registry
from jobs.tracking import mlflow_runs as runs
from pipeline.layout import SUMMARY_NAME
from pipeline.lineage.card import describe_model, make_card, shorten

_FOLDER = "evaluations"  # among the files of the run
_TAG = "evaluation_"
_CARD = "model_card.md"
_DESCRIPTION = "mlflow.note.content"  # tag that MLflow's pages show as the description of a run
CARD_TAG = "card_sha256"
"""Tag of a version: SHA-256 of its card among the files of its run."""


class EvaluationError(UserError):
    """The evaluation of a version is not the one that was attached to it."""


def attach_evaluation(version: Version, receipt: Mapping[str, Any], path: Path, figures: Mapping[str, float]) -> None:
    """Attach an evaluation to a version: its figures, its summary, and a card that shows them.

    receipt: entries of the version's receipt.
    path: of the summary.
    figures: means by name, as the run shows them.
    """
    summary = read_summary(path)
    registry.log_figures(version, figures, suite=summary.suite, step=receipt["steps"])
    runs.log_file(version.run_id, path, f"{_FOLDER}/{summary.suite}")
    runs.set_tags(version.run_id, {"suite": summary.suite})
    tag = {f"{_TAG}{summary.suite}": file_digest(path)}
    registry.set_version_tags(version, tag)
    renew_card(replace(version, tags={**version.tags, **tag}), receipt)


def read_evaluations(version: Version) -> dict[str, Summary]:
    """Return suite -> summary of each evaluation that is attached to a version, sorted by suite.

    Raises EvaluationError for a summary with another digest than the version's tag says.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="evaluations-") as folder:
        for suite, sha256, path in fetch_evaluations(version, Path(folder)):
            if (digest := file_digest(path)) != sha256:
                raise EvaluationError(
                    f"{version.name}@{version.version}: the evaluation of the suite {suite} has digest {digest}, "
                    f"the tag {_TAG}{suite} says {sha256}; evaluate again: dvc repro --force evaluate@..."
                )
            found[suite] = read_summary(path)
    return found


def fetch_evaluations(version: Version, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Copy the summaries of a version to a folder, unchecked. Yields suite, SHA-256 as its tag says, and path."""
    for tag, sha256 in sorted(version.tags.items()):
        if tag.startswith(_TAG):
            suite = tag.removeprefix(_TAG)
            yield suite, sha256, runs.fetch_file(version.run_id, f"{_FOLDER}/{suite}/{SUMMARY_NAME}", folder)


def renew_card(version: Version, receipt: Mapping[str, Any]) -> str:
    """Make the card of a version again, as description of version and run, and as a file of the run. Returns it.

    receipt: entries of the version's receipt.
    """
    evaluations = list(read_evaluations(version).values())
    text = make_card(receipt, version.tags, evaluations, runs.device_hours(version.run_id))
    registry.describe_model(version.name, describe_model(receipt["generator"]))
    registry.set_description(version, shorten(text))
    runs.set_tags(version.run_id, {_DESCRIPTION: shorten(text)})
    runs.log_text(version.run_id, text, _CARD)
    registry.set_version_tags(version, {CARD_TAG: hashlib.sha256(text.encode()).hexdigest()})
    return text


def fetch_card(version: Version, folder: Path) -> Path:
    """Copy the card of a version to a folder, unchecked. Returns its path."""
    return runs.fetch_file(version.run_id, _CARD, folder)
