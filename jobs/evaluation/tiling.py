"""Fill the hole of a large picture in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

FillOne = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
"""fill(image, mask, sketch): uint8 (H, W, 3), (H, W), 1 = hole, and (H, W), 1 = line, or None -> uint8 (H, W, 3)."""

_PROBE = 256  # pixels: side of the picture on which the field is measured
_STRIP = 8  # pixels: width of the visible part of it
_SMALLEST_MARGIN = 16  # pixels; it keeps the last tile of a line wide enough for a network
_STEP = 64  # pixels: corners of tiles are multiples of it, as networks with strides need


class Tiling(NamedTuple):
    """How a picture is divided.

    side: of a tile, in pixels.
    margin: pixels at a cut side of a tile that are not used; the next as many blend into those of the next tile.
    """

    side: int
    margin: int


def measure_field(fill: FillOne) -> int | None:
    """Measure how far a visible pixel reaches into the hole, in pixels, as far as it changes an 8-bit result.

    The generator fills two pictures that differ in a strip at the left side.
    Returns None if the difference reaches across the whole picture.
    """
    mask = np.ones((_PROBE, _PROBE), np.uint8)
    mask[:, :_STRIP] = 0
    noise = np.random.default_rng(0).integers(0, 256, (_PROBE, _PROBE, 3), dtype=np.uint8)
    results = [fill(image, mask, None) for image in (noise, 255 - noise)]
    columns = np.flatnonzero((results[0] != results[1]).any(axis=(0, 2)))
    reach = int(columns.max(initial=_STRIP - 1)) - _STRIP + 1
    return reach if reach < _PROBE - 2 * _STRIP else None


def plan_tiles(pixels: int, field: int | None) -> Tiling:
    """Choose tiles of at most some number of pixels.

    field: see `measure_field`. A margin of this width makes a result in tiles equal to that of the whole picture. If
        the field is too wide for a tile, or unknown, the margin is a sixth of the tile.
    """
    side = max(4 * _STEP, math.isqrt(pixels) // _STEP * _STEP)
    widest = side // 6
    return Tiling(side, widest if field is None else min(max(field, _SMALLEST_MARGIN), widest))


def fill_in_tiles(
    fill: FillOne,
    image: np.ndarray,
    mask: np.ndarray,
    sketch: np.ndarray | None,
    tiling: Tiling,
    at: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Fill a picture tile by tile. Tiles without a hole are left out.

    image, mask, sketch: as those of `fill`.
    at: gets the number of finished tiles and of all tiles.
    Returns uint8 (H, W, 3). Pixels outside the hole are those of the image.
    """
    height, width = mask.shape
    boxes = [box for box in _boxes(height, width, tiling) if mask[_parts(box)].any()]
    total = np.zeros((height, width, 3), np.float32)
    weights = np.zeros((height, width, 1), np.float32)
    for done, box in enumerate(boxes):
        at(done, len(boxes))
        part = _parts(box)
        weight = _weight(box, height, width, tiling)
        total[part] += weight * fill(image[part], mask[part], None if sketch is None else sketch[part])
        weights[part] += weight
    at(len(boxes), len(boxes))
    blended = np.floor(total / np.maximum(weights, 1e-6) + 0.5).astype(np.uint8)
    return np.where(mask[..., None] == 1, blended, image)


_Box = tuple[int, int, int, int]
"""top, bottom, left, right"""


def _boxes(height: int, width: int, tiling: Tiling) -> Iterator[_Box]:
    step = max(_STEP, (tiling.side - 3 * tiling.margin) // _STEP * _STEP)
    for top in _starts(height, tiling.side, step):
        for left in _starts(width, tiling.side, step):
            yield top, min(top + tiling.side, height), left, min(left + tiling.side, width)


def _starts(length: int, side: int, step: int) -> range:
    """Return where tiles begin along one side; the last tile reaches the end."""
    return range(0, max(1, length - side + step), step)


def _parts(box: _Box) -> tuple[slice, slice]:
    top, bottom, left, right = box
    return slice(top, bottom), slice(left, right)


def _weight(box: _Box, height: int, width: int, tiling: Tiling) -> np.ndarray:
    """Return the weight of each pixel of a tile, (h, w, 1): 0 in the margins of cut sides, then rising to 1."""
    top, bottom, left, right = box
    rows = _ramp(bottom - top, top > 0, bottom < height, tiling.margin)
    columns = _ramp(right - left, left > 0, right < width, tiling.margin)
    return (rows[:, None] * columns[None])[..., None]


def _ramp(length: int, is_cut_before: bool, is_cut_after: bool, margin: int) -> np.ndarray:
    places = np.arange(length, dtype=np.float32)
    before = places if is_cut_before else np.full_like(places, np.inf)
    after = places[::-1] if is_cut_after else np.full_like(places, np.inf)
    distance = np.minimum(before, after)
    return np.clip((distance - margin + 1) / (margin + 1), 0, 1)
