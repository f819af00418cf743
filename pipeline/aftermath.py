"""What follows from a takedown: caches are purged, checkpoints removed, versions marked, and evidence is kept."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.shards.manifest import MANIFEST_NAME
from datasets.tombstones import read_tombstones
from files.code_archive import process_code
from files.durable import file_digest
from files.errors import UserError
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.claim import find_holder
from jobs.runs.experiment import discard
from jobs.runs.folder import RunFolder
from jobs.runs.history import MANIFESTS, RECEIPTS, TAKEDOWNS, add_record, list_versions
from pipeline.layout import TOMBSTONES
from pipeline.lineage.archive import Archive
from pipeline.lineage.exposure import Exposure, find_exposure, find_taken_down
from pipeline.lineage.pictures import Picture, index_images
from pipeline.lineage.promotion import TAKEDOWN_TAG
from pipeline.lineage.registry import has_server
from pipeline.params import Params
from pipeline.purging import Held, purge

log = logging.getLogger(__name__)

NOT_DONE = (
    "backups, and copies that others made of shards, caches and remotes",
    "git's history: old commits keep names and digests, never pictures",
    "the trained weights: a model does not forget a picture by this; only a training without it is free of it",
    "sample pictures and reports among the files of runs at the tracking server",
    "the source: remove the picture from your copy of the data set",
)
"""What a takedown leaves to the user."""


class TrainingError(UserError):
    """A training reads the pictures now."""


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What was done, or with a dry run would be done.

    exposure: what the pictures reached.
    objects: of DVC's cache and remotes that are purged.
    trainings: folders of unfinished trainings that are removed, with their checkpoints.
    versions: registered versions that are marked.
    unmarked: versions that could not be marked, because the tracking server did not answer.
    evidence: the file that records all this; None if there was nothing to do.
    """

    exposure: Exposure
    objects: tuple[Held, ...]
    trainings: tuple[str, ...]
    versions: tuple[str, ...]
    unmarked: tuple[str, ...] = ()
    evidence: str | None = None


def keep_records() -> None:
    """Add all records that name the present pictures to the history, in a clone that got its data without one."""
    index_images()
    for path in Path("shards").rglob(f"*/{MANIFEST_NAME}"):
        content = path.read_bytes()
        add_record(MANIFESTS, json.loads(content)["digest"], content)
    for path in Path("models").glob("*/receipt.json"):
        add_record(RECEIPTS, file_digest(path), path.read_bytes())


def preview(params: Params, pictures: Sequence[Picture]) -> Aftermath:
    """Return what `clear` would do if these pictures were taken down. Changes nothing."""
    exposure = find_exposure(pictures, params.cluster.storage_folder)
    return Aftermath(
        exposure=exposure,
        objects=purge(exposure.shards, exposure.tables, exposure.keys, dry_run=True),
        trainings=exposure.unfinished,
        versions=tuple(exposure.versions),
    )


def check_idle(params: Params, pictures: Sequence[Picture]) -> None:
    """Raise TrainingError if a process trains on one of the pictures now."""
    for name in find_exposure(pictures, params.cluster.storage_folder).unfinished:
        folder = RunFolder(params.cluster.storage_folder.parent / name)
        if holder := find_holder(folder):
            raise TrainingError(
                f"{holder} trains in {name} on pictures that are to be removed; stop it first: python -m pipeline stop "
                f"{folder.path.parent.name}"
            )


def clear(params: Params, dataset: str, images: Mapping[str, tuple[str, str]]) -> Aftermath:
    """Do all that follows from the tombstones of a data set. What was done before is not done again.

    images: split -> digests of the images' manifest before and after, of a removal that was made now.
    Raises PurgeError if DVC's cache or a remote cannot be purged. The same call finishes it.
    """
    tombstones = [each for each in read_tombstones(TOMBSTONES) if each.dataset == dataset]
    pictures = find_taken_down(tombstones)
    exposure = find_exposure(pictures, params.cluster.storage_folder)
    objects = purge(exposure.shards, exposure.tables, exposure.keys, dry_run=False)
    for name in exposure.unfinished:
        _remove_training(params, RunFolder(params.cluster.storage_folder.parent / name))
    marked, unmarked = _mark(exposure.versions)
    done = Aftermath(
        exposure=exposure, objects=objects, trainings=exposure.unfinished, versions=marked, unmarked=unmarked
    )
    if not (images or objects or marked or exposure.unfinished):
        return done
    reasons = {each.key: {"reason": each.reason, "date": each.date} for each in tombstones}
    evidence = _write_evidence(done, dataset, images, reasons)
    return dataclasses.replace(done, evidence=evidence)


def _remove_training(params: Params, folder: RunFolder) -> None:
    """Remove an unfinished training and the copies of its checkpoints in a store."""
    if params.cluster.checkpoints is not None:
        url = f"{params.cluster.checkpoints.rstrip('/')}/{folder.path.parent.name}/{folder.path.name}"
        CheckpointStore(dataclasses.replace(params.store, url=url)).clear()
    discard(folder)


def _mark(versions: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Set TAKEDOWN_TAG of versions that do not have it, and renew their cards.

    versions: NAME@NUMBER -> keys.
    Returns the versions that were marked, and those that could not be.
    """
    if not versions:
        return (), ()
    if not has_server():
        return (), tuple(versions)
    from jobs.tracking import mlflow_registry as registry  # takes a second

    marked = []
    try:
        for known in list_versions():
            title = f"{known.name}@{known.version}"
            if title in versions and title not in marked and _mark_one(known, versions[title]):
                marked.append(title)
    except Exception as error:  # every client and store raises its own kinds
        log.warning("%s: not every version is marked; run: python -m pipeline takedown", registry.reason(error))
        return tuple(marked), tuple(title for title in versions if title not in marked)
    return tuple(marked), ()


def _mark_one(known: Any, keys: Sequence[str]) -> bool:
    """Mark one version. Returns whether it was not marked so before."""
    from jobs.tracking import mlflow_registry as registry
    from pipeline.lineage.evaluations import renew_card

    version = registry.find_version(known.name, known.version)
    if version.tags.get("weights_sha256") != known.tags.get("weights_sha256"):
        return False  # another server's version of this number
    text = ", ".join(keys)
    if version.tags.get(TAKEDOWN_TAG) == text:
        return False
    tags = {TAKEDOWN_TAG: text}
    registry.set_version_tags(version, tags)
    receipt = Archive().receipt_of(known.tags["weights_sha256"])
    if receipt:
        renew_card(dataclasses.replace(version, tags={**version.tags, **tags}), receipt)
    return True


def _write_evidence(
    done: Aftermath, dataset: str, images: Mapping[str, Any], reasons: Mapping[str, Mapping[str, str]]
) -> str:
    """Add the record of a takedown to the history. Returns its file."""
    exposure = done.exposure
    tree = {
        "dataset": dataset,
        "pictures": [
            {**asdict(p), "dhash": f"{p.dhash:016x}", **reasons.get(p.key, {"reason": "the same bytes"})}
            for p in exposure.pictures
        ],
        "images": images,
        "shards": sorted(exposure.shards),
        "uses": [asdict(use) for use in exposure.uses],
        "to_retrain": exposure.generators,
        "marked": done.versions,
        "not_marked": done.unmarked,
        "purged": [asdict(each) for each in done.objects],
        "removed_trainings": done.trainings,
        "not_done": NOT_DONE,
        "commit": process_code().commit,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    content = (json.dumps(tree, indent=1, sort_keys=True) + "\n").encode()
    name = f"{dataset}-{hashlib.sha256(content).hexdigest()}"
    add_record(TAKEDOWNS, name, content)
    return f"lineage/{TAKEDOWNS}/{name}.json"
