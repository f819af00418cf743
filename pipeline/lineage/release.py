"""Pack a registered version into one tar, for someone without this repository."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from files.checkout import ROOT
from files.durable import durable_file, file_digest
from files.errors import UserError
from jobs.evaluation.results import write_summary
from jobs.runs.history import Version
from jobs.tracking import mlflow_registry as registry
from jobs.tracking import mlflow_runs as runs
from jobs.tracking.model_files import DIGESTS, check_files, list_files
from pipeline.layout import SUMMARY_NAME
from pipeline.lineage.archive import Archive
from pipeline.lineage.card import make_card
from pipeline.lineage.evaluations import read_evaluations
from pipeline.lineage.promotion import TAKEDOWN_TAG
from pipeline.lineage.statement import Statement

_README = """\
# {name}, version {number}

| File | What it is |
|---|---|
| MODEL_CARD.md | what the model is, what it was made of, its figures and its limits |
| model/ | weights, receipt and code, as MLflow loads them |
| provenance/ | records of the training and of the data, as in-toto statements |
| evaluations/ | figures with intervals, per suite and hole ratio |
| LICENSE | licence of the code; the licence of the data is in MODEL_CARD.md |

Check it. The first command must print the digest that you were told with this archive:

    sha256sum SHA256SUMS
    sha256sum --check --strict --quiet SHA256SUMS

Run it, in Python {python} or newer:

    pip install -r model/requirements.txt
    python fill.py photo.png hole.png filled.png
"""
_CODE = Path(__file__).with_name("standalone.py")


class ReleaseError(UserError):
    """A version cannot be released. The message says why."""


def release(version: Version, target: Path, folder: Path) -> str:
    """Pack a version. Equal versions give equal bytes.

    target: the tar to write.
    folder: an empty one, for its files.
    Returns the digest of the list of its files, which the reader must be told by another way.
    Raises ReleaseError for a version that read pictures which were taken down since; ModelError if a file of it was
    changed.
    """
    if TAKEDOWN_TAG in version.tags:
        raise ReleaseError(
            f"{version.name}@{version.version} was trained on pictures that were taken down since "
            f"({version.tags[TAKEDOWN_TAG]}); train again and release that version"
        )
    top = folder / f"{version.name}-{version.version}"
    fetched = registry.fetch_version(version, folder / "fetched")
    check_files(fetched, version.tags[registry.FILES_TAG])
    shutil.copytree(fetched, top / "model", ignore=shutil.ignore_patterns("registered_model_meta"))
    (receipt_path,) = top.glob("model/data/*/receipt.json")
    receipt = json.loads(receipt_path.read_bytes())
    evaluations = read_evaluations(version)
    for suite, summary in evaluations.items():
        write_summary(top / "evaluations" / suite / SUMMARY_NAME, summary)
    for statement in _statements(Archive(), receipt, file_digest(receipt_path)):
        path = top / "provenance" / f"{statement.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(statement.to_json())
    card = make_card(receipt, version.tags, list(evaluations.values()), runs.device_hours(version.run_id))
    (top / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    python = ".".join(_python_version(top / "model"))
    (top / "README.md").write_text(
        _README.format(name=version.name, number=version.version, python=python), encoding="utf-8"
    )
    shutil.copyfile(_CODE, top / "fill.py")
    shutil.copyfile(ROOT / "LICENSE", top / "LICENSE")
    lines = "".join(f"{file_digest(top / name)}  {name}\n" for name in list_files(top))
    (top / DIGESTS).write_text(lines, encoding="utf-8")
    _pack(top, target)
    return hashlib.sha256(lines.encode()).hexdigest()


def _python_version(model: Path) -> list[str]:
    line = next(line for line in (model / "python_env.yaml").read_text().splitlines() if line.startswith("python:"))
    return line.split()[1].split(".")[:2]


def _statements(archive: Archive, receipt: Mapping[str, Any], sha256: str) -> Iterator[Statement]:
    """Yield the records of a training and of all columns that it read, each once. sha256: of the receipt."""
    found: dict[str, Statement | None] = {}
    found["train"] = archive.made(f"models/{receipt['generator']}/receipt.json", sha256)
    waiting = [receipt["images"], *receipt["columns"].values()]
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found[digest] = archive.made_manifest(digest)
            if made_from := archive.manifests.get(digest, {}).get("made_from"):
                waiting.append(made_from)
    yield from {id(each): each for each in found.values() if each}.values()


def _pack(folder: Path, target: Path) -> None:
    """Write the files of a folder as a tar, in order of names, without times and owners."""
    with durable_file(target) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name in sorted([*list_files(folder), DIGESTS]):
            content = (folder / name).read_bytes()
            entry = tarfile.TarInfo(f"{folder.name}/{name}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
