"""Check a registered version: its files, the links among its records, the run behind it, and the data that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.shards.manifest import MANIFEST_NAME, ManifestError, parse_manifest
from files.checkout import FOLDERS
from files.code_archive import CodeError, read_archive
from files.durable import file_digest
from jobs.runs.history import VERSIONS, Version, list_versions, name_version
from jobs.tracking.mlflow_registry import FILES_TAG, fetch_version
from jobs.tracking.mlflow_runs import fetch_run_files
from jobs.tracking.model_files import DIGESTS, list_files
from jobs.tracking.training_run import RECORD_NAME
from pipeline.code import LOCK
from pipeline.lineage.checks import ABSENT, MISSING, Check, check_manifest
from pipeline.lineage.evaluations import CARD_TAG, fetch_card, fetch_evaluations
from pipeline.lineage.statement import Statement, StatementError, parse_statement

_SET_LATER = ("evaluation_", CARD_TAG, "takedown", "champion_since", "candidate_since")
"""Tags that evaluate, takedown and promote set after the registration. Evaluations have checks of their own."""
_REGISTRY_REMEDY = "find out who changed the artifact store; use another version, or train again"
_TAG_REMEDY = "find out who changed the tags of the version; train again to register one that can be trusted"


@dataclass
class VersionChecks:
    """Check one registered version.

    version: as the tracking server has it now.
    folder: an empty folder for its files.
    notes: after `run`, what could not be checked and why.
    """

    version: Version
    folder: Path
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The version as a user names it."""
        return f"{self.version.name}@{self.version.version}"

    def run(self) -> Iterator[Check]:
        """Yield all comparisons, nearest to the version first."""
        yield from self._check_recorded_tags()
        if FILES_TAG not in self.version.tags:
            self.notes.append(f"{self.name} was registered without the tag {FILES_TAG}: its files cannot be checked")
            return
        model = fetch_version(self.version, self.folder)
        yield from self._check_files(model)
        receipts = sorted(model.glob("data/*/receipt.json"))
        if receipts:
            yield from self._check_receipt(receipts[0])
            yield from self._check_record(receipts[0].with_name(RECORD_NAME))
        yield from self._check_evaluations()

    def _check(self, link: str, expected: str, found: str, by: str, remedy: str = _REGISTRY_REMEDY) -> Check:
        return Check(link=f"{self.name}: {link}", expected=expected, found=found, by=by, remedy=remedy)

    def _check_recorded_tags(self) -> Iterator[Check]:
        """Compare the tags with those that were recorded at the registration."""
        ours = (self.version.name, self.version.version, self.version.run_id)
        recorded = [each for each in list_versions() if (each.name, each.version, each.run_id) == ours]
        if not recorded:
            self.notes.append(f"{self.name} was not registered from here: its tags cannot be compared")
        by = f"lineage/{VERSIONS}/{name_version(recorded[-1])}.json" if recorded else ""
        for name, value in recorded[-1].tags.items() if recorded else ():
            if name.startswith(_SET_LATER):
                continue
            found = self.version.tags.get(name, MISSING)
            yield self._check(f"tag {name}", value, found, by, _TAG_REMEDY)

    def _check_files(self, model: Path) -> Iterator[Check]:
        """Compare the list of files with the tag, and every file with the list."""
        listing = model / DIGESTS
        content = listing.read_bytes() if listing.is_file() else b""
        found = hashlib.sha256(content).hexdigest() if content else MISSING
        yield self._check(DIGESTS, self.version.tags[FILES_TAG], found, f"tag {FILES_TAG}")
        lines = (line.split("  ", 1) for line in content.decode(errors="replace").splitlines() if "  " in line)
        expected = {name: digest for digest, name in lines}
        for name in sorted({*expected, *list_files(model)}):
            path = model / name
            digest = file_digest(path) if path.is_file() else MISSING
            yield self._check(name, expected.get(name, ABSENT), digest, DIGESTS)

    def _check_receipt(self, path: Path) -> Iterator[Check]:
        """Compare the receipt with weights and tags, and the data that it names with shards/."""
        receipt = _read_json(path)
        if receipt is None:
            return  # its digest differs, which is said already
        tags, by = self.version.tags, "receipt.json"
        weights = path.with_name("weights.safetensors")
        digest = file_digest(weights) if weights.is_file() else MISSING
        yield self._check(f"data/{path.parent.name}/{weights.name}", receipt["weights_sha256"], digest, by)
        tagged = {"weights_sha256": receipt["weights_sha256"], "images_manifest": receipt["images"]}
        tagged |= {"identity": receipt["experiment"]}
        tagged |= {f"{column}_manifest": digest for column, digest in receipt["columns"].items()}
        for name, value in tagged.items():
            yield self._check(f"tag {name}", value, tags.get(name, MISSING), by, _TAG_REMEDY)
        for digest in (receipt["images"], *receipt["columns"].values()):
            yield from self._check_data(digest)

    def _check_data(self, digest: str) -> Iterator[Check]:
        """Check the shards of a column if shards/ has it."""
        for path in sorted(Path("shards").rglob(MANIFEST_NAME)):
            try:
                manifest = parse_manifest(path.read_bytes(), path)
            except ManifestError as error:
                self.notes.append(str(error))
                continue
            if manifest.digest == digest:
                yield from check_manifest(path.parent, manifest)
                return
        self.notes.append(f"{self.name}: shards/ does not have the column {digest}: its bytes cannot be read here")

    def _check_record(self, path: Path) -> Iterator[Check]:
        """Compare the provenance record with the tags, with its subjects, and with code and parameters of the run."""
        tags = self.version.tags
        if "provenance_sha256" not in tags:
            self.notes.append(f"{self.name} was registered without a provenance record")
            return
        found = file_digest(path) if path.is_file() else MISSING
        yield self._check(path.name, tags["provenance_sha256"], found, "tag provenance_sha256")
        try:
            statement = parse_statement(path.read_bytes(), str(path)) if path.is_file() else None
        except StatementError:
            return  # its digest differs, which is said already
        if statement is None:
            return
        by = path.name
        for subject in statement.subjects:
            if subject.name.startswith("models/"):
                file = path.with_name(Path(subject.name).name)
                digest = file_digest(file) if file.is_file() else MISSING
                yield self._check(f"data/{path.parent.name}/{file.name}", subject.sha256, digest, by)
        recorded = {r.name: r.sha256 for r in statement.dependencies}
        yield self._check("tag packages_lock", recorded[LOCK], tags.get("packages_lock", MISSING), by, _TAG_REMEDY)
        if statement.run:
            yield self._check("tag git_commit", statement.run.commit, tags.get("git_commit", MISSING), by, _TAG_REMEDY)
        yield from self._check_run(statement)

    def _check_evaluations(self) -> Iterator[Check]:
        """Compare the card and the summaries of the evaluations among the files of the run with the tags."""
        if CARD_TAG in self.version.tags:
            path = fetch_card(self.version, self.folder)
            yield self._check(
                f"{path.name} of its run", self.version.tags[CARD_TAG], file_digest(path), f"tag {CARD_TAG}"
            )
        for suite, sha256, path in fetch_evaluations(self.version, self.folder):
            yield self._check(f"{path.name} of the suite {suite}", sha256, file_digest(path), "its tag")

    def _check_run(self, statement: Statement) -> Iterator[Check]:
        """Compare code and parameters among the files of the run with the tags and with the record."""
        tags = self.version.tags
        parameters, code = fetch_run_files(self.version.run_id, self.folder)
        for path, tag in ((parameters, "params_sha256"), (code, "code_sha256")):
            expected = tags.get(tag, MISSING)
            yield self._check(f"{path.name} of its run", expected, file_digest(path), f"tag {tag}")
        try:
            members = read_archive(code)
        except CodeError:
            return  # its digest differs, which is said already
        for resource in statement.dependencies:
            if resource.name.split("/")[0] in FOLDERS:
                content = members.get(resource.name)
                found = MISSING if content is None else hashlib.sha256(content).hexdigest()
                yield self._check(f"{resource.name} in {code.name} of its run", resource.sha256, found, RECORD_NAME)


def _read_json(path: Path) -> Mapping[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None
