"""Evaluate on the frozen suite: fill every hole of every image, score 8-bit composites, keep every pair's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.shards.column import Column, check_alignment
from datasets.writing.tars import NewRecord
from files.objects import StoreConfig
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation import metrics
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.suite import gallery_keys, untrained
from masks.hole_ratio import BINS, hole_ratio, member_of_bin

Fill = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Rows to evaluate on the images and masks of the suite.

    model: folder of a trained generator, which gives two rows, `<name>` and `<name>_untrained`; None gives a row per
    baseline. store: where shards lie that are not in `images` and `masks`.
    """

    name: str
    images: str
    masks: str
    model: str | None
    config: EvaluateConfig
    store: StoreConfig = field(default_factory=StoreConfig)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row on one pair of image and mask."""

    row: str
    key: str
    bin: str
    hole_ratio: float
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What one shard of the images yields: figures of every pair, the gallery's pictures, and sums for FID by row."""

    shard: int
    scores: list[Score]
    gallery: list[NewRecord]
    fid_sums: dict[str, metrics.FidSums]


def evaluate_shard(job: EvaluationJob, shard: int) -> ShardResult:
    """Fill every hole of every image of one shard and score the composites.

    Raises ManifestError or ShardError when images and masks do not belong together, WeightsError for feature weights
    that are not those that were named.
    """
    images, masks = (Column(Path(folder), store=job.store) for folder in (job.images, job.masks))
    check_alignment(images, masks)
    inception = metrics.inception(job.config.inception)
    lpips_network = metrics.lpips_network(job.config.alexnet)
    shown = gallery_keys(images.keys.to_pylist(), job.config.gallery_images)
    result = ShardResult(shard=shard, scores=[], gallery=[], fid_sums={})
    rows = _rows(job)
    for record in images.records_of(shard):
        key = images.keys[record].as_py()
        image = decode_image(images.read(record))
        holes = np.stack([decode_map(masks.read(record, member_of_bin("mask", name))) // 255 for name, _, _ in BINS])
        truths = np.broadcast_to(image, (len(holes), *image.shape))
        members: dict[str, bytes] = {}
        for row, fill_holes in rows.items():
            filled = fill_holes(truths, holes)
            scores = _scores(row, key, truths, filled["composite"], holes)
            if not isinstance(lpips_network, metrics.NotComputed):
                for score, distance in zip(
                    scores, metrics.lpips(truths, filled["composite"], lpips_network), strict=True
                ):
                    score.values["lpips_alex"] = float(distance)
            if not isinstance(inception, metrics.NotComputed):
                sums = metrics.fid_sums(truths, filled["composite"], inception)
                before = result.fid_sums.get(row)
                result.fid_sums[row] = {name: before[name] + sums[name] for name in sums} if before else sums
            result.scores.extend(scores)
            if key in shown:
                members |= _pictures(row, filled)
        if members:
            result.gallery.append(NewRecord(key=key, members=members, about={}))
    return result


def summarise(results: Sequence[ShardResult], config: EvaluateConfig) -> dict[str, Any]:
    """Means with 95 % intervals over images: row -> "overall" or bin -> metric -> mean, low, high.

    A metric that could not be computed has its reason instead. FID is one figure for all pairs of a row.
    """
    scores = [score for result in results for score in result.scores]
    summary: dict[str, Any] = {}
    for row in dict.fromkeys(score.row for score in scores):
        ours = sorted((score for score in scores if score.row == row), key=lambda score: (score.key, score.bin))
        groups = {"overall": ours} | {name: [score for score in ours if score.bin == name] for name, _, _ in BINS}
        summary[row] = {
            group: {"pairs": len(members), **_means(members, config)} for group, members in groups.items() if members
        }
        overall = summary[row]["overall"]
        overall.setdefault("lpips_alex", str(metrics.lpips_network(None)))
        sums = [result.fid_sums.get(row) for result in results]
        fid = metrics.fid_of_sums(sums) if all(sums) else metrics.inception(None)
        overall["fid"] = asdict(metrics.Value(fid)) if isinstance(fid, float) else str(fid)
    return summary


def _means(scores: Sequence[Score], config: EvaluateConfig) -> dict[str, dict[str, float | None]]:
    keys = [score.key for score in scores]
    return {
        metric: asdict(
            metrics.bootstrap_interval(
                [score.values[metric] for score in scores], keys, seed=0, samples=config.bootstrap_samples
            )
        )
        for metric in scores[0].values
    }


def _rows(job: EvaluationJob) -> dict[str, Fill]:
    if job.model is None:
        return {name: partial(_fill_each, BASELINES[name].fill) for name in job.config.baselines}
    rows: dict[str, Fill] = {}
    for row, trained in ((job.name, True), (untrained(job.name), False)):
        recipe, receipt = load_trained(Path(job.model), trained=trained)
        rows[row] = partial(inpaint_images, recipe, receipt.edges)
    return rows


def _fill_each(function: Callable, images: np.ndarray, holes: np.ndarray) -> dict[str, np.ndarray]:
    return {"composite": np.stack([function(image, mask) for image, mask in zip(images, holes, strict=True)])}


def _scores(row: str, key: str, truths: np.ndarray, composites: np.ndarray, holes: np.ndarray) -> list[Score]:
    return [
        Score(
            row=row,
            key=key,
            bin=bin_name,
            hole_ratio=hole_ratio(mask),
            values=metrics.pairwise(truth, filled, mask),
        )
        for (bin_name, _, _), truth, filled, mask in zip(BINS, truths, composites, holes, strict=True)
    ]


def _pictures(row: str, filled: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Members of a gallery record, `<row>-<what>-<bin>.png`: what is "composite", or "edge" where there are edges."""
    return {
        member_of_bin(f"{row}-{what}", bin_name): (encode_grey_png if what == "edge" else encode_png)(picture)
        for what, pictures in filled.items()
        for (bin_name, _, _), picture in zip(BINS, pictures, strict=True)
    }
