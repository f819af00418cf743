"""Check that what the records of takedowns say is still so: the pictures are in no shard, and in no cache of DVC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.shards.records import ShardError, read_table
from jobs.runs.history import TAKEDOWNS, list_records
from pipeline.layout import column_folder, image_splits
from pipeline.lineage.checks import ABSENT, Check

_REMEDY = "run: python -m pipeline takedown"


def check_takedowns() -> Iterator[Check]:
    """Check the record of every takedown: its pictures against shards/image, its objects against DVC's cache."""
    for path in list_records(TAKEDOWNS):
        try:
            evidence = json.loads(path.read_bytes())
        except ValueError:
            continue  # its digest differs, which is said already
        by = f"lineage/{TAKEDOWNS}/{path.name}"
        yield from _check_pictures(evidence, by)
        yield from _check_objects(evidence, by)


def _check_pictures(evidence: dict[str, Any], by: str) -> Iterator[Check]:
    digests = [bytes.fromhex(picture["sha256"]) for picture in evidence["pictures"]]
    for split in image_splits():
        try:
            table = read_table(column_folder("image", split), columns=("key", "sha256"))
        except ShardError:
            continue  # its manifest or table differs, which is said already
        here = table.filter(pc.is_in(table["sha256"].cast(pa.binary()), pa.array(digests, pa.binary())))
        found = ", ".join(here["key"].to_pylist()[:3]) or ABSENT
        link = f"{column_folder('image', split)}: pictures that were taken down"
        yield Check(link=link, expected=ABSENT, found=found, by=by, remedy=_REMEDY)


def _check_objects(evidence: dict[str, Any], by: str) -> Iterator[Check]:
    """Check that the objects which were purged from DVC's cache are not there again. Remotes are not asked."""
    purged = [each["md5"] for each in evidence["purged"] if each["place"] == "cache"]
    if not purged or not Path(".dvc").is_dir():
        return
    from dvc.repo import Repo  # takes a second

    with Repo() as repo:
        for md5 in purged:
            link = f"{md5} in DVC's cache"
            found = "there" if repo.cache.local.exists(md5) else ABSENT
            yield Check(link=link, expected=ABSENT, found=found, by=by, remedy=_REMEDY)
