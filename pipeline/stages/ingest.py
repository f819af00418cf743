"""Raw images -> image shards, records and a manifest per split."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from datasets.inflated import inflate_sources
from datasets.ingest import plan_shards
from datasets.shards.manifest import Manifest
from datasets.sources import Source, SourceImage, open_source
from datasets.tombstones import TAKEN_DOWN, check_digests, find_unlisted, read_tombstones, stay_out
from datasets.writing.shard_tasks import WrittenShard
from datasets.writing.staging import commit_column
from files.archives import FileLocator
from files.durable import file_digest
from files.errors import UserError
from files.left_out import describe
from pipeline.inputs import StageInputs
from pipeline.layout import TOMBSTONES, inflated_folder
from pipeline.lineage.pictures import index_images
from pipeline.lineage.records import write_record
from pipeline.params import Params
from pipeline.start import check_start
from pipeline.writing import column_target, hold_columns, task_runner

log = logging.getLogger(__name__)


class IngestError(UserError):
    """The sources cannot become a data set; the message says which and what to do."""


@hold_columns("image")
def run(params: Params) -> None:
    """Write shards/image/<split> for every split of the data set.

    A split whose number of pictures differs from the published number is logged, and its manifest states both. Files
    that are left out by rule are counted, as are pictures whose metadata cannot be read: in the log and the manifests.
    Raises ParamsError for files and values that a later stage would miss, TombstoneError for a tombstone that is none
    or fits another picture, IngestError as soon as too many sources are unusable, ChangedFileError as soon as a file is
    read that is no longer the one that was listed or a list file has changed, WritingError if a split has no usable
    picture.
    """
    inputs = StageInputs.read("ingest")
    check_start(params)
    tombstones = read_tombstones(TOMBSTONES)
    source = open_source(params.dataset)
    images = source.images()
    keys = {image.key for image in images}
    for problem in find_unlisted(TOMBSTONES, source.card.name, keys):
        log.warning("%s", problem)
    counts = Counter(image.split for image in images)
    published = _other_published_counts(source, counts)
    if left_out := source.left_out():
        log.warning(f"{source.card.name}: left out by rule: {describe(left_out)}")
    manifests = {split: _manifest(params, source, split, published.get(split)) for split in counts}
    excluded = stay_out(tombstones, source.card.name, keys)
    counted = _Counted(len(images), params.ingest.max_rejected)
    runner = task_runner(params)

    def check(written: WrittenShard) -> None:
        source.check_lists()
        counted.count(written)

    with inflate_sources(inflated_folder("image").resolve(), images, runner.open_bar) as readable:
        check_digests(TOMBSTONES, source.card.name, {image.key: image.locator for image in readable})
        commit_column(
            column_target(params, "image", inputs),
            {split: dict(enumerate(plan_shards(readable, split, params.ingest, excluded))) for split in counts},
            manifests,
            runner,
            on_shard=check,
        )
    write_record(inputs, _digest_archives(images))
    index_images()
    if counted.metadata_dropped:
        log.warning(
            f"{source.card.name}: metadata that cannot be read was dropped from {counted.metadata_dropped:,} pictures"
        )


def _digest_archives(images: Iterable[SourceImage]) -> dict[str, str]:
    """Return name -> SHA-256 of each archive that pictures came from. Of a file in a folder, the table has the digest.

    Raises ChangedFileError if an archive has changed since it was listed.
    """
    locators = {image.locator.path: image.locator for image in images if not isinstance(image.locator, FileLocator)}
    digests = {path.name: file_digest(path) for path in locators}
    for locator in locators.values():
        locator.check()
    return digests


def _other_published_counts(source: Source, counts: Counter[str]) -> dict[str, int]:
    """Return split -> published number of pictures where it differs from `counts`, and log each difference."""
    published = {}
    for split, (count, published_count) in source.unlike_published(counts).items():
        published[split] = published_count
        log.warning(
            f"{source.card.name} has {count:,} pictures of {split} here, {published_count:,} were published; if that "
            f"is not intended, see: python -m pipeline datasets {source.card.name}"
        )
    return published


def _manifest(params: Params, source: Source, split: str, published: int | None) -> Manifest:
    """Return the manifest of one split, still without shards and records.

    published: published number of pictures of the split; None if the split has that number.
    """
    noted = {} if published is None else {"published_pictures": published}
    return Manifest(
        dataset=source.card.name,
        split=split,
        column="image",
        licence=source.card.licence,
        shards=(),
        records_sha256="",
        parameters=asdict(params.ingest) | source.parameters() | noted,
        left_out=source.left_out(),
    )


class _Counted:
    """Count unusable sources and dropped metadata, and stop the work as soon as too many sources are unusable.

    total: number of sources.
    limit: share of unusable sources above which `count` raises IngestError, in [0, 1).
    """

    def __init__(self, total: int, limit: float) -> None:
        self._total, self._limit = total, limit
        self._reasons: Counter[str] = Counter()
        self._first = ""
        self.metadata_dropped = 0

    def count(self, written: WrittenShard) -> None:
        self.metadata_dropped += written.metadata_dropped
        unusable = [reject for reject in written.rejected if reject.reason != TAKEN_DOWN]
        self._reasons.update(reject.reason for reject in unusable)
        self._first = self._first or next((reject.name for reject in unusable), "")
        if self._reasons.total() > self._limit * self._total:
            raise IngestError(self._message())

    def _message(self) -> str:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self._reasons.most_common(3))
        return (
            f"at least {self._reasons.total()} of {self._total} images are unusable, more than ingest.max_rejected = "
            f"{self._limit:g} allows: {reasons}. One is {self._first}. Repair or remove them, or raise "
            "ingest.max_rejected; finished shards are kept"
        )


VERB = {"help": "stage: raw images to image shards, records and manifests", "example": "ingest"}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage."""
    run(params)
    return 0
