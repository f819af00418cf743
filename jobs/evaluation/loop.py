"""Evaluate on the frozen suite: fill every hole of every image and score the 8-bit composites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import Expectation
from files.objects import StoreConfig
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.baselines import BASELINES, FillOne
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.evaluation.metrics.fid import FidSums, add_sums
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.results import Score
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.suite import gallery_keys, untrained_row
from masks.hole_ratio import BINS, hole_ratio, member_of_bin

Fill = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""fill(images, masks): uint8 (N, H, W, 3) and (N, H, W), 1 = hole -> "composite" and other pictures, N each."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Rows to evaluate on the images and masks of the suite.

    name: the generator, or "baselines".
    images, masks: folders of the two columns.
    images_digest, masks_digest: digests that their manifests must have; None accepts any.
    model: folder of a trained generator, which gives the rows `<name>` and `<name>_untrained`; None gives one row per
        baseline.
    config: parameters of the evaluation.
    store: object store with the shards that are not on this disk.
    """

    name: str
    images: str
    masks: str
    model: str | None
    config: EvaluateConfig
    store: StoreConfig = field(default_factory=StoreConfig)
    images_digest: str | None = None
    masks_digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Results of one shard of images.

    scores: one per row and pair.
    gallery: key -> members, the pictures of each image that is in the gallery.
    fid_sums: row -> sums for FID; empty where FID is missing.
    missing: metric -> reason, of metrics that could not be computed.
    """

    shard: int
    scores: list[Score] = field(default_factory=list)
    gallery: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fid_sums: dict[str, FidSums] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)


def evaluate_shard(job: EvaluationJob, shard: int) -> ShardResult:
    """Fill every hole of every image of one shard and score the composites.

    Raises ManifestError or ShardError when images and masks have changed or do not belong together, WeightsError for
    feature weights that are not the configured ones.
    """
    images, masks = (
        Column(Path(folder), store=job.store, expected=Expectation(digest=digest))
        for folder, digest in ((job.images, job.images_digest), (job.masks, job.masks_digest))
    )
    check_alignment(images, masks)
    evaluator = Evaluator(job.config)
    in_gallery = gallery_keys(images.keys.to_pylist(), job.config.gallery_images)
    result = ShardResult(shard=shard, missing=evaluator.missing)
    fills = _fills(job)
    for record in images.records_of(shard):
        key = images.keys[record].as_py()
        image = decode_image(images.read(record))
        holes = np.stack([decode_map(masks.read(record, member_of_bin("mask", name))) // 255 for name, _, _ in BINS])
        truths = np.broadcast_to(image, (len(holes), *image.shape))
        for row, fill in fills.items():
            pictures = fill(truths, holes)
            _score(result, evaluator, row, key, truths, pictures["composite"], holes)
            if key in in_gallery:
                result.gallery.setdefault(key, {}).update(_members(row, pictures))
    return result


def _fills(job: EvaluationJob) -> dict[str, Fill]:
    """Return row -> function that fills holes."""
    if job.model is None:
        return {name: partial(_fill_one_by_one, BASELINES[name].fill) for name in job.config.baselines}
    fills: dict[str, Fill] = {}
    for row, trained in ((job.name, True), (untrained_row(job.name), False)):
        recipe, receipt = load_trained(Path(job.model), trained=trained)
        fills[row] = partial(inpaint_images, recipe, receipt.edges)
    return fills


def _fill_one_by_one(fill: FillOne, images: np.ndarray, holes: np.ndarray) -> dict[str, np.ndarray]:
    return {"composite": np.stack([fill(image, mask) for image, mask in zip(images, holes, strict=True)])}


def _score(
    result: ShardResult,
    evaluator: Evaluator,
    row: str,
    key: str,
    truths: np.ndarray,
    composites: np.ndarray,
    holes: np.ndarray,
) -> None:
    """Add the scores of one image to the result; arrays have one entry per bin."""
    values = dict(evaluator.score(truths, composites, holes))
    for number, (bin_name, _, _) in enumerate(BINS):
        of_pair = {name: numbers[number] for name, numbers in values.items()}
        ratio = hole_ratio(holes[number])
        result.scores.append(Score(row=row, key=key, bin=bin_name, hole_ratio=ratio, values=of_pair))
    sums = evaluator.fid_sums(truths, composites)
    if sums is not None:
        before = result.fid_sums.get(row)
        result.fid_sums[row] = sums if before is None else add_sums([before, sums])


def _members(row: str, filled: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Encode one row's pictures of one image as members `<row>-<kind>-<bin>.png` of a gallery record.

    filled: kind -> one picture per bin; the kinds are "composite" and, of a generator that completes edges, "edge".
    """
    return {
        member_of_bin(f"{row}-{what}", bin_name): (encode_grey_png if what == "edge" else encode_png)(picture)
        for what, pictures in filled.items()
        for (bin_name, _, _), picture in zip(BINS, pictures, strict=True)
    }
