"""Evaluate on the frozen suite: fill every hole of every image and score the 8-bit composites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import Expectation
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.costs import Cost, measure_cost
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.fills import Fill, Filled, open_fills
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.results import Score
from jobs.evaluation.suite import gallery_keys
from masks.hole_ratio import BINS, hole_ratio, member_of_bin

_PART_IMAGES = 8
_BIN_NAMES = tuple(name for name, _, _ in BINS)


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """Results of consecutive images of the suite.

    first: number of the first image.
    scores: one per row and pair that was filled.
    over_limit: (row, key, bin) of each pair that was not filled in time.
    gallery: key -> members, the pictures of each image that is in the gallery.
    features: row -> features of its pairs in parts; empty without the network.
    missing: metric -> reason, of metrics that could not be computed.
    costs: row -> what its fills cost.
    sources: row -> digest of the files of each image, of a row that was read and not computed.
    """

    first: int
    scores: list[Score] = field(default_factory=list)
    over_limit: list[tuple[str, str, str]] = field(default_factory=list)
    gallery: dict[str, dict[str, bytes]] = field(default_factory=dict)
    features: dict[str, list[Features]] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)


def divide_images(number: int) -> list[range]:
    """Divide the images of a suite into parts, so that several processes have work on a small suite too."""
    return [range(first, min(first + _PART_IMAGES, number)) for first in range(0, number, _PART_IMAGES)]


def evaluate_part(job: EvaluationJob, part: range) -> PartResult:
    """Fill every hole of some images and score the composites.

    part: numbers of the images in the suite.
    Raises ManifestError or ShardError when images and masks have changed or do not belong together, ExternalError for a
    picture of another program that is missing or does not fit.
    """
    images, masks = (
        Column(Path(folder), store=job.store, expected=Expectation(digest=digest))
        for folder, digest in ((job.images, job.images_digest), (job.masks, job.masks_digest))
    )
    check_alignment(images, masks)
    evaluator, fills = _load(job)
    in_gallery = gallery_keys(images.keys.to_pylist(), job.config.gallery_images)
    result = PartResult(first=part.start, missing=evaluator.missing)
    for record in part:
        key = images.keys[record].as_py()
        image = decode_image(images.read(record))
        holes = np.stack([decode_map(masks.read(record, member_of_bin("mask", bin))) // 255 for bin in _BIN_NAMES])
        truths = np.broadcast_to(image, (len(holes), *image.shape))
        for row, fill in fills.items():
            with measure_cost(result.costs, row, len(holes)):
                filled = fill(key, truths, holes)
            _score(result, evaluator, row, key, image, holes, filled)
            if filled.source:
                result.sources.setdefault(row, []).append(filled.source)
            if key in in_gallery:
                result.gallery.setdefault(key, {}).update(_members(row, filled))
    return result


_loaded: list[tuple[EvaluationJob, Evaluator, Mapping[str, Fill]]] = []
"""The last job of this process and the networks that were loaded for it: a process gets many parts of one job."""


def _load(job: EvaluationJob) -> tuple[Evaluator, Mapping[str, Fill]]:
    """Load the networks of the metrics and of the rows."""
    if not _loaded or _loaded[0][0] != job:
        _loaded[:] = [(job, Evaluator(job.config), open_fills(job))]
    return _loaded[0][1:]


def _score(
    result: PartResult, evaluator: Evaluator, row: str, key: str, image: np.ndarray, holes: np.ndarray, filled: Filled
) -> None:
    """Add the scores and features of one image to the result.

    holes: one mask per bin.
    """
    bins = tuple(_BIN_NAMES[number] for number in filled.pairs)
    result.over_limit.extend((row, key, bin) for bin in _BIN_NAMES if bin not in bins)
    if not bins:
        return
    holes, composites = holes[filled.pairs], filled.pictures["composite"]
    values = evaluator.score(image, composites, holes, filled.pictures.get("edge"))
    for bin, hole, of_pair in zip(bins, holes, values, strict=True):
        result.scores.append(Score(row=row, key=key, bin=bin, hole_ratio=hole_ratio(hole), values=of_pair))
    sides = evaluator.features(image, composites)
    if sides is not None:
        features = Features(*sides, images=(key,) * len(bins), bins=bins)
        result.features.setdefault(row, []).append(features)


def _members(row: str, filled: Filled) -> dict[str, bytes]:
    """Encode one row's pictures of one image as members `<row>-<kind>-<bin>.png` of a gallery record."""
    return {
        member_of_bin(f"{row}-{what}", _BIN_NAMES[number]): (encode_grey_png if what == "edge" else encode_png)(picture)
        for what, pictures in filled.pictures.items()
        for number, picture in zip(filled.pairs, pictures, strict=True)
    }
