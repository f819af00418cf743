"""Read the records of a checkout: those of the history, and those beside the present outputs.

A clone that got its data with `dvc pull` has no history. Hence records of provenance/, manifests of shards/ and
receipts of models/ are read, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets.shards.manifest import MANIFEST_NAME
from files.durable import file_digest
from jobs.runs.history import MANIFESTS, RECEIPTS, STATEMENTS, Version, list_records, list_versions
from pipeline.layout import PROVENANCE
from pipeline.lineage.statement import Statement, parse_statement


@dataclass(frozen=True)
class ImageShards:
    """The shards of a split of images.

    names: file names.
    digests: the first 16 digits of the SHA-256 of each.
    sizes: number of records of each.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    sizes: tuple[int, ...]


class Archive:
    """All records, each read at its first use."""

    @cached_property
    def statements(self) -> list[Statement]:
        """Provenance records in their full form, oldest first; before them those of provenance/ without a full form."""
        full = [_read(path) for path in list_records(STATEMENTS)]
        present = [_read(path) for path in sorted(PROVENANCE.rglob("[!.]*.json"))]
        alone = [each for each in present if not any(each.name == s.name and each == s.portable for s in full)]
        return [*alone, *full]

    @cached_property
    def receipts(self) -> list[dict[str, Any]]:
        """Receipts of finished trainings, oldest first, each with `receipt_sha256`, the digest of its file."""
        found = {path.stem: path for path in list_records(RECEIPTS)}
        present = {file_digest(path): path for path in sorted(Path("models").glob("*/receipt.json"))}
        return [
            {**json.loads(path.read_bytes()), "receipt_sha256": sha256} for sha256, path in {**present, **found}.items()
        ]

    @cached_property
    def versions(self) -> list[Version]:
        """Registered versions, oldest first."""
        return list_versions()

    @cached_property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """Digest -> entries of every manifest, oldest first, but for galleries."""
        found: dict[str, dict[str, Any]] = {}
        for path in (*list_records(MANIFESTS), *sorted(Path("shards").rglob(f"*/{MANIFEST_NAME}"))):
            if path.stem not in found:
                entries = json.loads(path.read_bytes())
                found.setdefault(entries["digest"], entries)
        return {digest: entries for digest, entries in found.items() if entries["column"] != "gallery"}

    def made(self, name: str, sha256: str) -> Statement | None:
        """Return the newest record of the stage that wrote a file.

        name: of the file.
        sha256: of its bytes.
        """
        return self._makers.get((name, sha256))

    def made_manifest(self, digest: str) -> Statement | None:
        """Return the newest record of the stage that wrote the manifest of a digest."""
        return self._makers.get(("manifest", digest)) if digest else None

    @cached_property
    def _makers(self) -> dict[tuple[str, str], Statement]:
        """The newest record by name and SHA-256 of a subject, and by "manifest" and digest of a manifest."""
        found = {}
        for statement in self.statements:
            for subject in statement.subjects:
                found[subject.name, subject.sha256] = statement
                found["manifest", subject.manifest] = statement
        return found

    def reading(self, manifest: str) -> Iterator[Statement]:
        """Yield the records of stages that read the column whose manifest has a digest."""
        return (s for s in self.statements if any(r.manifest == manifest for r in s.dependencies))

    def receipt_of(self, weights_sha256: str) -> Mapping[str, Any] | None:
        """Return the receipt of weights; None without one."""
        return next((r for r in reversed(self.receipts) if r["weights_sha256"] == weights_sha256), None)


def _read(path: Path) -> Statement:
    return parse_statement(path.read_bytes(), str(path), is_exact=False)  # `verify` compares with its digest


def image_shards(manifest: Mapping[str, Any]) -> ImageShards:
    """Return the shards that the entries of a manifest list."""
    shards = manifest["shards"]
    return ImageShards(
        names=tuple(shard["name"] for shard in shards),
        digests=tuple(shard["sha256"][:16] for shard in shards),
        sizes=tuple(shard["records"] for shard in shards),
    )
