"""Evaluate on the frozen suite: fill every hole of every image and score the 8-bit composites."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import Expectation
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.ahead import Here, in_order
from jobs.evaluation.costs import Cost, measure_cost
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.fills import Filled, Holes, open_fills
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.results import Score
from jobs.evaluation.suite import gallery_keys, select_records
from masks.hole_ratio import hole_ratio, member_of_bin

Item = TypeVar("Item")
Result = TypeVar("Result")

_PART_IMAGES = 8
_PART_BATCHES = 8  # a device waits at the first and the last batch of a part


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """Results of consecutive images of the suite.

    first: number of the first image.
    keys: of the images.
    scores: one per row and pair that was filled, in the order of images.
    over_limit: (row, key, bin) of each pair that was not filled in time.
    gallery: key -> members, the pictures of each image that is in the gallery.
    real: features of the images, (n, num_features); empty without the network.
    fake: row -> features of its composites, in the order of its scores; empty without the network.
    missing: metric -> reason, of metrics that could not be computed.
    costs: row -> what its fills cost.
    sources: row -> digest of the files of each image, of a row that was read and not computed.
    """

    first: int
    keys: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    over_limit: list[tuple[str, str, str]] = field(default_factory=list)
    gallery: dict[str, dict[str, bytes]] = field(default_factory=dict)
    real: list[np.ndarray] = field(default_factory=list)
    fake: dict[str, list[np.ndarray]] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)


def divide_images(number: int, batch_size: int = 1) -> list[range]:
    """Divide the images of a suite into parts, so that several workers have work on a small suite too.

    A part is a number of whole batches, so that the division does not change which images are in one batch.
    """
    size = max(_PART_IMAGES, _PART_BATCHES * batch_size if batch_size > 1 else 1)
    return [range(first, min(first + size, number)) for first in range(0, number, size)]


@dataclass(frozen=True)
class _Prepared:
    """One image with its holes, read and ready to be filled.

    for_rows: row -> what its `Fill.prepare` returned, and the seconds that it took.
    """

    holes: Holes
    for_rows: Mapping[str, tuple[Any, float]]


class Evaluation:
    """An evaluation on one worker: the networks and columns are opened once, then parts are evaluated.

    With more than one core, images are read and prepared ahead and pixels are scored by other threads, while this one
    gives work to the device. The results do not depend on the number of cores.

    job: what to compute.
    cores: number of cores that this worker may use.
    Raises ManifestError or ShardError when images and masks have changed or do not belong together.
    """

    def __init__(self, job: EvaluationJob, cores: int = 1) -> None:
        self._images, self._masks = (
            Column(Path(folder), store=job.store, expected=Expectation(digest=digest))
            for folder, digest in ((job.images, job.images_digest), (job.masks, job.masks_digest))
        )
        check_alignment(self._images, self._masks)
        self._batch_size = job.config.batch_size
        self._evaluator, self._fills = Evaluator(job.config, job.device), open_fills(job)
        self._bins = job.bins
        self._records = select_records(self._images, job.smallest_sha256)
        keys = self._images.keys.take(pa.array(self._records))
        self._in_gallery = gallery_keys(keys.to_pylist(), job.config.gallery_images)
        self._reading = Lock()  # of the columns, which keep files open
        self._executor = ThreadPoolExecutor(cores - 1) if cores > 1 else Here()
        self._num_read_ahead = max(2 * self._batch_size, cores) if cores > 1 else 0
        self._num_scored_late = 2 * self._batch_size * len(self._fills) if cores > 1 else 0

    def __call__(self, part: range) -> PartResult:
        """Fill every hole of some images and score the composites.

        part: numbers of the images in the suite.
        Raises ShardError when a shard has changed, ExternalError for a picture of another program that is missing or
        does not fit.
        """
        result = PartResult(first=part.start)
        with _one_thread():
            scored = (future for batch in self._batches(part) for future in self._fill(batch, result))
            for image in in_order(scored, self._num_scored_late):
                _add(result, image, self._bins)
        result.missing.update(self._evaluator.missing)
        return result

    def _batches(self, part: range) -> Iterator[list[_Prepared]]:
        """Read images ahead, and yield batches of images of one size."""
        reading = (self._executor.submit(self._read, number) for number in part)
        prepared = in_order(reading, self._num_read_ahead)
        for first in range(0, len(part), self._batch_size):
            images = [next(prepared) for _ in part[first : first + self._batch_size]]
            for _, same_size in groupby(images, key=lambda one: one.holes.image.shape):
                yield list(same_size)

    def _read(self, number: int) -> _Prepared:
        record = int(self._records[number])
        with self._reading:
            key, picture = self._images.keys[record].as_py(), self._images.read(record)
            members = [self._masks.read(record, member_of_bin("mask", name)) for name in self._bins]
        holes = Holes(key, decode_image(picture), np.stack([decode_map(member) // 255 for member in members]))
        for_rows = {row: _timed(fill.prepare, holes) for row, fill in self._fills.items() if fill.prepare is not None}
        return _Prepared(holes, for_rows)

    def _fill(self, batch: Sequence[_Prepared], result: PartResult) -> Iterator[Future[_Scored]]:
        """Fill the holes of a batch for every row. Yields the scores of each image and row as futures."""
        several = [one.holes for one in batch]
        result.keys.extend(one.key for one in several)
        if self._evaluator.has_features:
            result.real.append(self._evaluator.features(np.stack([one.image for one in several])))
        filled: dict[str, list[Filled]] = {}
        for row, fill in self._fills.items():
            prepared = [one.for_rows.get(row, (None, 0.0)) for one in batch]
            seconds = sum(seconds for _, seconds in prepared)
            result.costs[row] = result.costs.get(row, Cost()) + Cost(seconds=seconds)
            with measure_cost(result.costs, row, sum(len(one.masks) for one in several)):
                filled[row] = fill.fill(several, [value for value, _ in prepared])
        for number, holes in enumerate(several):
            for row, of_row in filled.items():
                yield self._score(row, holes, of_row[number])

    def _score(self, row: str, holes: Holes, filled: Filled) -> Future[_Scored]:
        """Score the composites of one image: by networks here, the pixels in another thread."""
        composites = filled.pictures.get("composite")
        from_networks, features = [], None
        if composites is not None:
            from_networks = self._evaluator.score_features(holes.image, composites)
            features = self._evaluator.features(composites) if self._evaluator.has_features else None

        def score() -> _Scored:
            values = []
            if composites is not None:
                pixels = self._evaluator.score_pixels(
                    holes.image, composites, holes.masks[filled.pairs], filled.pictures.get("edge")
                )
                values = [of_pair | others for of_pair, others in zip(pixels, from_networks, strict=True)]
            members = _members(row, filled, self._bins) if holes.key in self._in_gallery else None
            return _Scored(row, holes, filled, values, features, members)

        return self._executor.submit(score)


@dataclass(frozen=True)
class _Scored:
    """The composites of one row and image with their scores.

    values: metric -> number of each pair that was filled.
    features: of the composites, (n, num_features); None without the network.
    members: pictures for the gallery; None for an image that is not in it.
    """

    row: str
    holes: Holes
    filled: Filled
    values: Sequence[Mapping[str, float]]
    features: np.ndarray | None
    members: Mapping[str, bytes] | None


def _add(result: PartResult, scored: _Scored, names: Sequence[str]) -> None:
    row, key, filled = scored.row, scored.holes.key, scored.filled
    bins = tuple(names[number] for number in filled.pairs)
    result.over_limit.extend((row, key, bin) for bin in names if bin not in bins)
    for bin, hole, values in zip(bins, scored.holes.masks[filled.pairs], scored.values, strict=True):
        result.scores.append(Score(row=row, key=key, bin=bin, hole_ratio=hole_ratio(hole), values=dict(values)))
    if scored.features is not None:
        result.fake.setdefault(row, []).append(scored.features)
    if filled.source:
        result.sources.setdefault(row, []).append(filled.source)
    if scored.members is not None:
        result.gallery.setdefault(key, {}).update(scored.members)


def _members(row: str, filled: Filled, bins: Sequence[str]) -> dict[str, bytes]:
    """Encode one row's pictures of one image as members `<row>-<kind>-<bin>.png` of a gallery record."""
    return {
        member_of_bin(f"{row}-{what}", bins[number]): (encode_grey_png if what == "edge" else encode_png)(picture)
        for what, pictures in filled.pictures.items()
        for number, picture in zip(filled.pairs, pictures, strict=True)
    }


def _timed(function: Callable[[Item], Result], item: Item) -> tuple[Result, float]:
    begin = time.perf_counter()
    return function(item), time.perf_counter() - begin


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute with one CPU thread: work is divided among processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
