"""The rows of an evaluation as functions that fill holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.baselines import BASELINES, SLOW, FillOne
from jobs.evaluation.external import read_composites
from jobs.evaluation.inference import Precision, Visible, fill_on_device, hide, load_trained
from jobs.evaluation.job import EvaluationJob, RegisteredFill
from jobs.evaluation.metrics.pixels import composite_uint8
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


@dataclass(frozen=True)
class Holes:
    """One image of the suite and the holes that are cut into it.

    key: of the image.
    image: uint8 (H, W, 3).
    masks: uint8 (N, H, W), 1 = hole.
    """

    key: str
    image: np.ndarray
    masks: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The image once per mask, uint8 (N, H, W, 3), without a copy."""
        return np.broadcast_to(self.image, (len(self.masks), *self.image.shape))


@dataclass(frozen=True)
class Fill:
    """How one row fills holes.

    fill(several, prepared): fills the holes of several images of one size. Returns one `Filled` for each.
    prepare(one): computes for one image what `fill` needs and what needs no network. It runs on any core, ahead.
    """

    fill: Callable[[Sequence[Holes], Sequence[Any]], list[Filled]]
    prepare: Callable[[Holes], Any] | None = None


def open_fills(job: EvaluationJob) -> dict[str, Fill]:
    """Load what the rows of a job need. Returns row -> how it fills holes."""
    return {
        **(_baselines(job) if job.has_baselines else {}),
        **(_generator(job) if job.model is not None else {}),
        **{name: Fill(partial(_one_by_one, partial(_fill_together, open()))) for name, open in job.registered.items()},
        **{row.name: Fill(partial(_one_by_one, partial(_read_pictures, row))) for row in job.external},
    }


def _one_by_one(fill: Callable[[Holes], Filled], several: Sequence[Holes], prepared: Sequence[None]) -> list[Filled]:
    return [fill(one) for one in several]


def _baselines(job: EvaluationJob) -> dict[str, Fill]:
    limit = _time_limit(job.config.seconds_per_fill)
    if SLOW.intersection(job.config.baselines):
        limit.start()
    fills = {name: BASELINES[name].fill for name in job.config.baselines}
    return {
        name: Fill(partial(_one_by_one, partial(fill_separately, partial(limit.fill, fill) if name in SLOW else fill)))
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
        recipe, receipt = load_trained(Path(job.model), trained=trained, device=job.device)
        fill = partial(fill_with_network, recipe, job.config.precision)
        fills[row] = Fill(fill, partial(_hide, recipe.columns, receipt.edges))
        if trained and job.config.rows.guided and receipt.edges is not None:
            fills[guided_row(row)] = Fill(
                partial(_without_edges, fill), partial(_hide_with_sketch, recipe.columns, receipt.edges)
            )
    return fills


def _hide(columns: Sequence[str], edges: EdgeConfig | None, one: Holes) -> Visible:
    return hide(one.images, one.masks, columns=columns, edges=edges)


def _hide_with_sketch(columns: Sequence[str], edges: EdgeConfig, one: Holes) -> Visible:
    """Hide an image, and take the edges of the true image as its sketch."""
    sketch = canny_edges(one.image, edges)
    return _hide(columns, edges, one)._replace(sketches=np.broadcast_to(sketch, one.masks.shape))


def _without_edges(
    fill: Callable[[Sequence[Holes], Sequence[Visible]], list[Filled]],
    several: Sequence[Holes],
    prepared: Sequence[Visible],
) -> list[Filled]:
    """Fill holes, and return the composites alone: the edges would be the true ones."""
    filled = fill(several, prepared)
    return [one._replace(pictures={"composite": one.pictures["composite"]}) for one in filled]


def fill_with_network(
    recipe: Recipe, precision: Precision, several: Sequence[Holes], prepared: Sequence[Visible]
) -> list[Filled]:
    """Fill the holes of several images of one size as one batch."""
    pictures = {name: each.cpu().numpy() for name, each in fill_on_device(recipe, prepared, precision).items()}
    filled, start = [], 0
    for one in several:
        pairs = slice(start, start + len(one.masks))
        of_image = {name: each[pairs] for name, each in pictures.items()}
        composite = composite_uint8(of_image.pop("output"), one.images, one.masks)
        filled.append(Filled(list(range(len(one.masks))), {"composite": composite, **of_image}))
        start = pairs.stop
    return filled


def fill_separately(fill: FillOne, one: Holes) -> Filled:
    """Fill one hole of an image after another. fill: returns None for a hole that takes too long."""
    filled = [fill(*pair) for pair in zip(one.images, one.masks, strict=True)]
    pairs = [number for number, picture in enumerate(filled) if picture is not None]
    composites = [filled[number] for number in pairs]
    return Filled(pairs, {"composite": np.stack(composites)} if pairs else {})


def _fill_together(fill: RegisteredFill, one: Holes) -> Filled:
    composites = fill(np.ascontiguousarray(one.images), one.masks[..., None])
    return Filled(list(range(len(one.masks))), {"composite": composites})


def _read_pictures(row: External, one: Holes) -> Filled:
    composites, source = read_composites(row, one.key, one.images, one.masks)
    return Filled(list(range(len(one.masks))), {"composite": composites}, source)
