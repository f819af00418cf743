"""The history: copies of all records that stages and registrations wrote, in the folder `lineage` of the checkout.

DVC removes the outputs of a stage before it runs the stage again. The history keeps the records of the outputs that are
gone, so that an old model can be explained. A file of it is written once and never changed, but for aliases.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from files.durable import write_durably
from files.errors import UserError

STATEMENTS, MANIFESTS, RECEIPTS, VERSIONS = "statements", "manifests", "receipts", "versions"
TAKEDOWNS = "takedowns"
"""Kinds of records. Each is a folder of JSON files."""


def history_folder() -> Path:
    """Return the folder of the history, in the checkout whose experiment DVC runs, or else in the working directory."""
    return Path(os.environ.get("DVC_ROOT", ""), "lineage").resolve()


def add_record(kind: str, name: str, content: bytes) -> None:
    """Add a record to the history, unless it has one of this name.

    kind: one of STATEMENTS, MANIFESTS, RECEIPTS, VERSIONS, TAKEDOWNS.
    name: without suffix; equal names mean equal contents.
    """
    path = history_folder() / kind / f"{name}.json"
    if not path.is_file():
        write_durably(path, content)


def list_records(kind: str) -> list[Path]:
    """Return the files of all records of a kind, oldest first."""
    paths = (history_folder() / kind).glob("[!.]*.json")
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))


class HistoryError(UserError):
    """A record of the history is damaged. The message names it."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version of a model, as it was registered.

    name: of the registered model.
    version: its number, as text.
    run_id: of its run at the tracking server.
    tags: of the version.
    """

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]


def add_version(version: Version) -> None:
    """Add a registered version to the history."""
    content = json.dumps(asdict(version), indent=2, sort_keys=True) + "\n"
    add_record(VERSIONS, name_version(version), content.encode())


def name_version(version: Version) -> str:
    """Return the name of the record of a registered version, without suffix."""
    files = version.tags.get("files_sha256", "")[:16]  # two tracking servers may have versions of the same number
    return f"{version.name}-{version.version}-{files}"


def set_alias(name: str, alias: str, version: str) -> None:
    """Note which version of a model has an alias."""
    write_durably(_alias_file(name, alias), f"{version}\n".encode())


def read_alias(name: str, alias: str) -> str | None:
    """Return the version that had an alias when it was last set here; None if it never was."""
    path = _alias_file(name, alias)
    return path.read_text().strip() if path.is_file() else None


def list_aliases() -> Iterator[tuple[str, str, str]]:
    """Yield name, alias and version of all aliases that were set here."""
    for path in sorted((history_folder() / VERSIONS).glob("*@*.txt")):
        name, _, alias = path.stem.partition("@")
        yield name, alias, path.read_text().strip()


def list_versions() -> list[Version]:
    """Return all registered versions of the history, oldest first. Raises HistoryError for a damaged record."""
    return [_read_version(path) for path in list_records(VERSIONS)]


def _read_version(path: Path) -> Version:
    try:
        return Version(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise HistoryError(
            f"lineage/{VERSIONS}/{path.name} is not a record of a registered version ({error}); restore it, or remove "
            "it: `lineage model` records the version again"
        ) from error


def _alias_file(name: str, alias: str) -> Path:
    return history_folder() / VERSIONS / f"{name}@{alias}.txt"
