"""The rows of an evaluation as functions that fill holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.baselines import BASELINES, SLOW, FillOne
from jobs.evaluation.external import read_composites
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.settings import External, guided_row, untrained_row
from jobs.evaluation.time_limit import TimeLimit
from jobs.recipe.contract import Recipe


class Filled(NamedTuple):
    """The pictures of one image.

    pairs: numbers of the pairs that were filled, in order; the others took longer than the limit.
    pictures: "composite", uint8 (len(pairs), H, W, 3), and of a generator that completes edges "edge",
        uint8 (len(pairs), H, W).
    source: digest of the files that the pictures were read from; "" if they were computed.
    """

    pairs: list[int]
    pictures: Mapping[str, np.ndarray]
    source: str = ""


Fill = Callable[[str, np.ndarray, np.ndarray], Filled]
"""fill(key, images, masks): key of the image, uint8 (N, H, W, 3) and (N, H, W), 1 = hole."""


def open_fills(job: EvaluationJob) -> dict[str, Fill]:
    """Load what the rows of a job need. Returns row -> function that fills holes."""
    return {
        **(_baselines(job) if job.has_baselines else {}),
        **(_generator(job) if job.model is not None else {}),
        **{name: partial(_fill_together, opener()) for name, opener in job.registered.items()},
        **{row.name: partial(_read_pictures, row) for row in job.external},
    }


def _baselines(job: EvaluationJob) -> dict[str, Fill]:
    limit = _time_limit(job.config.seconds_per_fill)
    if SLOW.intersection(job.config.baselines):
        limit.start()
    fills = {name: BASELINES[name].fill for name in job.config.baselines}
    return {
        name: partial(_fill_one_by_one, partial(limit.fill, fill) if name in SLOW else fill)
        for name, fill in fills.items()
    }


@cache
def _time_limit(seconds: float) -> TimeLimit:
    """Return the limit of this process, so that the tasks of an evaluation share its child."""
    return TimeLimit(seconds)


def _generator(job: EvaluationJob) -> dict[str, Fill]:
    rows = {job.name: True} | ({untrained_row(job.name): False} if job.config.rows.untrained else {})
    fills: dict[str, Fill] = {}
    for row, trained in rows.items():
        recipe, receipt = load_trained(Path(job.model), trained=trained)
        fills[row] = partial(_inpaint, partial(inpaint_images, recipe, receipt.edges))
        if trained and job.config.rows.guided and receipt.edges is not None:
            fills[guided_row(row)] = partial(_inpaint, partial(_inpaint_with_true_edges, recipe, receipt.edges))
    return fills


def _inpaint_with_true_edges(
    recipe: Recipe, edges: EdgeConfig, images: np.ndarray, masks: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Fill holes as `inpaint_images` does, with the edges of the true images as sketches."""
    sketches = np.stack([canny_edges(image, edges) for image in images])
    filled = inpaint_images(recipe, edges, images, masks, sketches)
    return {"composite": filled["composite"]}  # its edges are the true ones


def _inpaint(
    inpaint: Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]],
    key: str,
    images: np.ndarray,
    masks: np.ndarray,
) -> Filled:
    return Filled(list(range(len(images))), inpaint(images, masks))


def _fill_together(
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray], key: str, images: np.ndarray, masks: np.ndarray
) -> Filled:
    return Filled(list(range(len(images))), {"composite": fill(np.ascontiguousarray(images), masks[..., None])})


def _fill_one_by_one(fill: FillOne, key: str, images: np.ndarray, masks: np.ndarray) -> Filled:
    filled = [fill(image, mask) for image, mask in zip(images, masks, strict=True)]
    pairs = [number for number, picture in enumerate(filled) if picture is not None]
    composites = [filled[number] for number in pairs]
    return Filled(pairs, {"composite": np.stack(composites)} if pairs else {})


def _read_pictures(row: External, key: str, images: np.ndarray, masks: np.ndarray) -> Filled:
    composites, source = read_composites(row, key, images, masks)
    return Filled(list(range(len(images))), {"composite": composites}, source)
