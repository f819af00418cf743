"""MaskConfig -> masks: one of a seed, or one of a seed whose hole ratio lies in a given bin."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from masks.rectangles import centre_rectangle, random_rectangle
from masks.strokes import random_strokes

Kind = Literal["free_form", "strokes", "rectangle", "centre"]

_PAPER_SIZE = 256  # the image size for which the papers state lengths
_MEAN_SHARE = 0.311  # of a free-form mask with the default numbers, measured over 3000 draws at 256x256
_MAX_PIECES = 1000  # pieces tried for one mask of a bin; published bins take under 40 from 32x32 to 512x680
_ZOOM_STEP = 0.9  # how much smaller the next piece is after one that left the bin


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which holes to draw. Lengths are pixels of an image whose short side is 256 and scale with that side.

    free_form is the union of one rectangle and one mask of strokes: the training mask of DeepFill v2.
    Sources: v1 = Yu et al., CVPR 2018, v2 = Yu et al., ICCV 2019, each the authors' code.
    """

    kind: Kind = "free_form"
    max_strokes: int = 3  # v2: 1 to 3 strokes
    min_brush_width: int = 12  # v2
    max_brush_width: int = 40  # v2, exclusive
    rectangle_side: int = 128  # v1: box before it shrinks
    rectangle_max_shrink: int = 16  # v1: each side moves inward by 0 to 16
    centre_side: int = 128  # a quarter of a square image: Pathak et al., CVPR 2016

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("max_strokes", "min_brush_width", "max_brush_width", "rectangle_side", "centre_side"):
            _check_integer(name, getattr(self, name), at_least=1)
        _check_integer("rectangle_max_shrink", self.rectangle_max_shrink, at_least=0)
        if self.min_brush_width > self.max_brush_width:
            raise ValueError(
                f"min_brush_width must not exceed max_brush_width, got {self.min_brush_width} and "
                f"{self.max_brush_width}; lower the first or raise the second"
            )
        if self.rectangle_side <= 2 * self.rectangle_max_shrink:
            raise ValueError(
                f"rectangle_side must exceed 2 * rectangle_max_shrink, or nothing is left of the box, got "
                f"{self.rectangle_side} and {self.rectangle_max_shrink}; raise the first or lower the second"
            )
        for name in ("rectangle_side", "centre_side"):
            if getattr(self, name) > _PAPER_SIZE:
                raise ValueError(
                    f"{name} must be at most {_PAPER_SIZE}, the whole short side, got {getattr(self, name)}"
                )


def draw_mask(config: MaskConfig, height: int, width: int, seed: int) -> np.ndarray:
    """Return the mask of (config, height, width, seed): uint8 (height, width), 0 or 1, 1 = hole.

    A pure function of its arguments. Raises ValueError if a size is not positive or the seed negative.
    """
    rng = _generator(height, width, seed)
    scale = min(height, width) / _PAPER_SIZE
    if config.kind == "centre":
        return centre_rectangle(height, width, side=config.centre_side, scale=scale)
    if config.kind == "strokes":
        return _strokes(config, rng, height, width, config.max_strokes)
    rectangle = _rectangle(config, rng, height, width)
    if config.kind == "rectangle":
        return rectangle
    return rectangle | _strokes(config, rng, height, width, config.max_strokes)


def draw_mask_in_bin(config: MaskConfig, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
    """Return the mask of all the arguments, with hole ratio in (low, high]: uint8 (height, width), 0 or 1, 1 = hole.

    Adds boxes and strokes (free_form: one box, then strokes) up to a ratio drawn uniformly from the bin. Pieces are
    smaller in small bins; from 0.3 on they have their usual size and there are more of them. A piece that leaves the
    bin is undone.

    A pure function of its arguments. Raises ValueError for bad arguments, or if no mask of this kind falls into the
    bin; kind "centre" has but one mask.
    """
    rng = _generator(height, width, seed)
    if not 0 <= low < high <= 1:
        raise ValueError(f"a bin must satisfy 0 <= low < high <= 1, got ({low}, {high}]; pass one of hole_ratio.BINS")
    if config.kind == "centre":
        mask = draw_mask(config, height, width, seed)
        found = low < _ratio(mask) <= high
    else:
        mask, found = _grow(config, rng, height, width, low, high)
    if not found:
        raise ValueError(
            f"no mask of {config} at {height}x{width} has a hole ratio in ({low}, {high}], the last one tried has "
            f"{_ratio(mask):.4f}; widen the bin, enlarge the image or choose another kind"
        )
    return mask


def _grow(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> tuple[np.ndarray, bool]:
    """Return a mask and whether its ratio lies in (low, high]."""
    mask, num_pieces = np.zeros((height, width), np.uint8), 0
    min_pieces = 2 if config.kind == "free_form" else 1  # a box and a stroke
    target = rng.uniform(low, high)
    zoom = min(1.0, math.sqrt(target / _MEAN_SHARE))
    for _ in range(_MAX_PIECES):
        if config.kind == "rectangle" or (config.kind == "free_form" and num_pieces == 0):
            piece = _rectangle(config, rng, height, width, zoom)
        else:
            piece = _strokes(config, rng, height, width, 1, zoom)
        grown = mask | piece
        if _ratio(grown) <= high:
            mask, num_pieces = grown, num_pieces + 1
            is_complete = _ratio(mask) >= target
        else:
            # Short of its target, yet in the bin: better to stop here than to fill up with crumbs.
            is_complete = True
            zoom *= _ZOOM_STEP
        if is_complete and num_pieces >= min_pieces and _ratio(mask) > low:
            return mask, True
    return mask, False


def _rectangle(config: MaskConfig, rng: np.random.Generator, height: int, width: int, zoom: float = 1.0) -> np.ndarray:
    return random_rectangle(
        rng,
        height,
        width,
        side=config.rectangle_side,
        max_shrink=config.rectangle_max_shrink,
        scale=zoom * min(height, width) / _PAPER_SIZE,
    )


def _strokes(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, max_strokes: int, zoom: float = 1.0
) -> np.ndarray:
    return random_strokes(
        rng,
        height,
        width,
        max_strokes=max_strokes,
        min_brush_width=config.min_brush_width,
        max_brush_width=config.max_brush_width,
        zoom=zoom,
    )


def _ratio(mask: np.ndarray) -> float:
    """Return what hole_ratio does, without its checks: it is asked after every piece."""
    return cv2.countNonZero(mask) / mask.size


def _generator(height: int, width: int, seed: int) -> np.random.Generator:
    _check_integer("height", height, at_least=1)
    _check_integer("width", width, at_least=1)
    _check_integer("seed", seed, at_least=0)
    return np.random.Generator(np.random.PCG64(seed))


def _check_integer(name: str, value: int, at_least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
