"""Draw the mask of a seed, or the mask of a seed with its hole ratio in a given bin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from files.errors import UserError
from masks.config import PAPER_SIZE, MaskConfig, check_integer
from masks.hole_ratio import BINS
from masks.kinds import Holes, holes_of

_MAX_DRAWS = 1000  # of a mask that must be neither empty nor too large; the mean is below two
_MEAN_SHARE = 0.311  # mean hole ratio of free_form with the default numbers, over 3000 draws at 256x256
_MAX_PIECES = 1000  # tried for one mask of a bin; boxes and brush strokes take under 40 in published bins
_ZOOM_STEP = 0.9  # factor on the size of the next piece after a piece that left the bin


def draw_mask(config: MaskConfig, height: int, width: int, seed: int) -> np.ndarray:
    """Return the mask of (config, height, width, seed): uint8 (height, width), 0 or 1, 1 = hole.

    A pure function of its arguments.
    Raises ValueError if a size is not positive or the seed is negative, UserError if no such mask is found.
    """
    rng = _generator(height, width, seed)
    holes = holes_of(config)
    if config.kind == "irregular":  # has no whole masks
        return _draw_in_bin(holes, rng, height, width, BINS[0][1], BINS[-1][2])
    limit = holes.max_hole_ratio
    for _ in range(_MAX_DRAWS):
        mask = _clear_border(config, holes.mask(rng, height, width))
        if 0 < _ratio(mask) <= limit:
            return mask
    raise UserError(
        f"no mask of {config} at {height}x{width} has a hole of at most {limit:g} of the image; "
        "lower border or enlarge the image"
    )


def draw_mask_in_bin(config: MaskConfig, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
    """Return the mask of all the arguments, with hole ratio in (low, high]: uint8 (height, width), 0 or 1, 1 = hole.

    For thin, medium and thick, up to fifty whole masks are drawn, and the first one in the bin is returned. If there is
    none, and for all other kinds, pieces are added (free_form: one box, then strokes) up to a ratio that is drawn
    uniformly from the bin. Pieces are smaller in small bins; from 0.3 on they have their usual size and there are more
    of them. A piece that leaves the bin is undone.

    A pure function of its arguments. Raises ValueError for bad arguments, UserError if no mask of this kind is found
    with a ratio in the bin; kind "centre" has only one mask.
    """
    rng = _generator(height, width, seed)
    if not 0 <= low < high <= 1:
        raise ValueError(f"a bin must satisfy 0 <= low < high <= 1, got ({low}, {high}]; pass one of hole_ratio.BINS")
    return _draw_in_bin(holes_of(config), rng, height, width, low, high)


def _draw_in_bin(
    holes: Holes, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> np.ndarray:
    for _ in range(holes.num_whole_draws):
        mask = _clear_border(holes.config, holes.mask(rng, height, width))
        if low < _ratio(mask) <= high:
            return mask
    if holes.min_pieces:
        mask, is_inside = _build(holes, rng, height, width, low, high)
        if is_inside:
            return mask
    raise UserError(
        f"no mask of {holes.config} at {height}x{width} has a hole ratio in ({low}, {high}], the last one tried has "
        f"{_ratio(mask):.4f}; widen the bin, enlarge the image, lower border or choose another kind"
    )


def _build(
    holes: Holes, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> tuple[np.ndarray, bool]:
    """Build a mask from pieces. Returns it and whether it has enough pieces and its ratio is in (low, high]."""
    mask, num_pieces = np.zeros((height, width), np.uint8), 0
    max_ratio = _ratio(_clear_border(holes.config, np.ones_like(mask)))
    target = rng.uniform(low, max(low, min(high, max_ratio)))
    zoom = min(1.0, math.sqrt(target / _MEAN_SHARE))
    piece = holes.pieces(rng, height, width)
    for _ in range(_MAX_PIECES):
        grown = mask | _clear_border(holes.config, piece(rng, height, width, zoom, num_pieces))
        if _ratio(grown) <= high:
            mask, num_pieces = grown, num_pieces + 1
            is_complete = _ratio(mask) >= target
        else:
            # Short of its target, yet in the bin: stopping here avoids filling up with tiny pieces.
            is_complete = True
            zoom *= _ZOOM_STEP
        if is_complete and num_pieces >= holes.min_pieces and _ratio(mask) > low:
            return mask, True
    return mask, False


def _clear_border(config: MaskConfig, mask: np.ndarray) -> np.ndarray:
    """Remove the hole from the border, in place."""
    height, width = mask.shape
    border = math.ceil(config.border * min(height, width) / PAPER_SIZE)
    if border:
        mask[:border] = mask[height - border :] = 0
        mask[:, :border] = mask[:, width - border :] = 0
    return mask


def _ratio(mask: np.ndarray) -> float:
    """Return the same as `hole_ratio`, without its checks: this runs after every piece."""
    return cv2.countNonZero(mask) / mask.size


def _generator(height: int, width: int, seed: int) -> np.random.Generator:
    check_integer("height", height, at_least=1)
    check_integer("width", width, at_least=1)
    check_integer("seed", seed, at_least=0)
    return np.random.Generator(np.random.PCG64(seed))


@dataclass(frozen=True)
class DrawnMasks:
    """Masks of every kind except "files"; see `masks.masks.Masks`."""

    config: MaskConfig

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        """See `draw_mask`."""
        return draw_mask(self.config, height, width, seed)

    def draw_in_bin(self, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
        """See `draw_mask_in_bin`."""
        return draw_mask_in_bin(self.config, height, width, low, high, seed)
