"""MaskConfig -> masks: one of a seed, or one of a seed whose hole ratio lies in a given bin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from files.errors import UserError
from masks.config import FAMILY_KINDS, PAPER_SIZE, MaskConfig, check_integer
from masks.hole_ratio import BINS
from masks.irregular import random_occlusion
from masks.lama import MAX_HOLE_RATIO, draws_boxes, family_for, random_boxes, random_chains, random_family_mask
from masks.rectangles import centre_rectangle, random_rectangle
from masks.strokes import random_strokes

_MAX_DRAWS = 1000  # of a mask that must be neither empty nor too large; less than two on average
_MAX_FAMILY_DRAWS = 50  # of a family's own masks before one is put together to fit a bin
_MEAN_SHARE = 0.311  # of a free-form mask with the default numbers, measured over 3000 draws at 256x256
_MAX_PIECES = 1000  # pieces tried for one mask of a bin; boxes and brush strokes take under 40 in published bins
_ZOOM_STEP = 0.9  # how much smaller the next piece is after one that left the bin


def draw_mask(config: MaskConfig, height: int, width: int, seed: int) -> np.ndarray:
    """Return the mask of (config, height, width, seed): uint8 (height, width), 0 or 1, 1 = hole.

    A pure function of its arguments. Raises ValueError if a size is not positive or the seed negative.
    """
    rng = _generator(height, width, seed)
    _check_drawn(config)
    if config.kind == "irregular":
        return _in_bin(config, rng, height, width, BINS[0][1], BINS[-1][2])
    limit = MAX_HOLE_RATIO if config.kind in FAMILY_KINDS else 1
    for _ in range(_MAX_DRAWS):
        mask = _draw(config, rng, height, width)
        if 0 < _ratio(mask) <= limit:
            return mask
    raise UserError(
        f"no mask of {config} at {height}x{width} has a hole of at most {limit} of the image; "
        "lower border or enlarge the image"
    )


def _draw(config: MaskConfig, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One mask as its paper draws it, of any share."""
    if config.kind == "centre":
        scale = min(height, width) / PAPER_SIZE
        mask = centre_rectangle(height, width, side=config.centre_side, scale=scale)
    elif config.kind in FAMILY_KINDS:
        mask = random_family_mask(rng, height, width, family_for(config.kind, height, width))
    elif config.kind == "strokes":
        mask = _strokes(config, rng, height, width, config.max_strokes)
    else:
        mask = _rectangle(config, rng, height, width)
        if config.kind == "free_form":
            mask |= _strokes(config, rng, height, width, config.max_strokes)
    return _clear_border(config, mask)


def draw_mask_in_bin(config: MaskConfig, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
    """Return the mask of all the arguments, with hole ratio in (low, high]: uint8 (height, width), 0 or 1, 1 = hole.

    thin, medium and thick are drawn as they are until one lies in the bin. Where none of fifty does, and for all
    other kinds, pieces are added (free_form: one box, then strokes) up to a ratio drawn uniformly from the bin. Pieces
    are smaller in small bins; from 0.3 on they have their usual size and there are more of them. A piece that leaves
    the bin is undone.

    A pure function of its arguments. Raises ValueError for bad arguments, or if no mask of this kind falls into the
    bin; kind "centre" has but one mask.
    """
    rng = _generator(height, width, seed)
    if not 0 <= low < high <= 1:
        raise ValueError(f"a bin must satisfy 0 <= low < high <= 1, got ({low}, {high}]; pass one of hole_ratio.BINS")
    _check_drawn(config)
    return _in_bin(config, rng, height, width, low, high)


def _in_bin(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> np.ndarray:
    num_draws = 1 if config.kind == "centre" else _MAX_FAMILY_DRAWS if config.kind in FAMILY_KINDS else 0
    for _ in range(num_draws):
        mask = _draw(config, rng, height, width)
        if low < _ratio(mask) <= high:
            return mask
    found = False
    if config.kind != "centre":
        mask, found = _grow(config, rng, height, width, low, high)
    if not found:
        raise UserError(
            f"no mask of {config} at {height}x{width} has a hole ratio in ({low}, {high}], the last one tried has "
            f"{_ratio(mask):.4f}; widen the bin, enlarge the image, lower border or choose another kind"
        )
    return mask


def _grow(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> tuple[np.ndarray, bool]:
    """Return a mask and whether its ratio lies in (low, high]."""
    mask, num_pieces = np.zeros((height, width), np.uint8), 0
    min_pieces = 2 if config.kind == "free_form" else 1  # a box and a stroke
    room = _ratio(_clear_border(config, np.ones_like(mask)))
    target = rng.uniform(low, max(low, min(high, room)))
    zoom = min(1.0, math.sqrt(target / _MEAN_SHARE))
    family = family_for(config.kind, height, width) if config.kind in FAMILY_KINDS else None
    boxes = family is not None and draws_boxes(rng, family)
    num_squares = max(height, width) // min(height, width)  # an oblong needs as many more strokes
    for _ in range(_MAX_PIECES):
        if config.kind == "irregular":
            piece = random_occlusion(rng, height, width, zoom=zoom)
        elif boxes:
            piece = random_boxes(rng, height, width, family, count=1, zoom=zoom)
        elif family is not None:
            piece = random_chains(rng, height, width, family, count=num_squares, first=num_pieces, zoom=zoom)
        elif config.kind == "rectangle" or (config.kind == "free_form" and num_pieces == 0):
            piece = _rectangle(config, rng, height, width, zoom)
        else:
            piece = _strokes(config, rng, height, width, 1, zoom)
        grown = mask | _clear_border(config, piece)
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
        scale=zoom * min(height, width) / PAPER_SIZE,
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


def _clear_border(config: MaskConfig, mask: np.ndarray) -> np.ndarray:
    """Take the hole off the border, in place."""
    height, width = mask.shape
    border = math.ceil(config.border * min(height, width) / PAPER_SIZE)
    if border:
        mask[:border] = mask[height - border :] = 0
        mask[:, :border] = mask[:, width - border :] = 0
    return mask


def _ratio(mask: np.ndarray) -> float:
    """Return what hole_ratio does, without its checks: it is asked after every piece."""
    return cv2.countNonZero(mask) / mask.size


def _generator(height: int, width: int, seed: int) -> np.random.Generator:
    check_integer("height", height, at_least=1)
    check_integer("width", width, at_least=1)
    check_integer("seed", seed, at_least=0)
    return np.random.Generator(np.random.PCG64(seed))


def _check_drawn(config: MaskConfig) -> None:
    if config.kind == "files":
        raise ValueError("masks of kind files are read, not drawn; see masks/collection.py")


@dataclass(frozen=True)
class DrawnMasks:
    """Masks of every kind but files."""

    config: MaskConfig

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        return draw_mask(self.config, height, width, seed)

    def draw_in_bin(self, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
        return draw_mask_in_bin(self.config, height, width, low, high, seed)
