"""Raw images -> image shards, records and a manifest per split."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections import Counter
from dataclasses import asdict

from datasets.ingest import plan_shards
from datasets.shards.manifest import Manifest
from datasets.sources import open_source
from datasets.tombstones import TAKEN_DOWN, read_tombstones, stay_out
from datasets.writing.parts import WrittenShard
from files.errors import UserError
from pipeline.code import stage_code
from pipeline.inflated import inflated
from pipeline.layout import TOMBSTONES
from pipeline.params import Params
from pipeline.staging import commit_column

log = logging.getLogger(__name__)


class IngestError(UserError):
    """The sources cannot become a data set; the message says which and what to do."""


def run(params: Params) -> None:
    """Write shards/image/<split> for every split of the data set.

    Warns of a split that has another number of pictures than was published, which its manifest then states.
    Raises IngestError as soon as too many sources are unusable, PartError when a split is left empty.
    """
    source = open_source(params.dataset)
    images = source.images()
    counts = Counter(image.split for image in images)
    unlike = source.unlike_published(counts)
    for split, (here, published) in unlike.items():
        log.warning(
            f"{source.card.name} has {here:,} pictures of {split} here, {published:,} were published; if that is not "
            f"meant, see: python -m pipeline datasets {source.card.name}"
        )
    out = stay_out(read_tombstones(TOMBSTONES), source.card.name)
    manifests = {
        split: Manifest(
            dataset=source.card.name,
            split=split,
            column="image",
            licence=source.card.licence,
            shards=(),
            records_sha256="",
            parameters=asdict(params.ingest)
            | source.parameters()
            | ({"published_pictures": unlike[split][1]} if split in unlike else {}),
        )
        for split in counts
    }
    with inflated("image", images) as readable:
        commit_column(
            "image",
            {split: dict(enumerate(plan_shards(readable, split, params.ingest, out))) for split in counts},
            manifests,
            code=stage_code("ingest"),
            num_workers=params.cluster.num_workers,
            store=params.store,
            on_part=_Rejects(len(images), params.ingest.max_rejected).count,
        )


class _Rejects:
    """Counts unusable sources and stops the work once they are too many: after that no other image can help."""

    def __init__(self, total: int, limit: float) -> None:
        self._total, self._limit = total, limit
        self._reasons: Counter[str] = Counter()
        self._first = ""

    def count(self, part: WrittenShard) -> None:
        unusable = [reject for reject in part.rejected if reject.reason != TAKEN_DOWN]
        self._reasons.update(reject.reason for reject in unusable)
        self._first = self._first or next((reject.name for reject in unusable), "")
        if (found := self._reasons.total()) <= self._limit * self._total:
            return
        named = "; ".join(f"{count} x {reason}" for reason, count in self._reasons.most_common(3))
        raise IngestError(
            f"at least {found} of {self._total} images are unusable, more than ingest.max_rejected = {self._limit:g} "
            f"allows: {named}. One is {self._first}. Repair or remove them, or raise ingest.max_rejected; "
            "shards that are finished are kept"
        )


VERB = {"help": "stage: raw images to image shards, records and manifests", "example": "ingest"}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage."""
    run(params)
    return 0
