"""Read a mask that a user gives: find which pixels are the hole, and say by what they were found.

`inpaint` and mask collections have this one reader. The convention is white = hole, on black. Other masks that have one
meaning are understood; a mask that can be read in two ways is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from files.pictures import RejectedImageError, decode_layers

_TOLERANCE = 10  # grey levels: closer values count as equal
_MAX_UNCLEAR = 0.01  # share of pixels that are neither hole nor background nor the soft edge between them
_MAX_SOFT = 1 / 3  # share of pixels in soft edges
_EDGE_SHARE = 0.04  # of the shorter side: how far a soft edge may be from hole and background
_EDGE_REACH = 6  # pixels: the least such distance
_JPEG_REACH = 16  # pixels of a block with its colours, to which JPEG's noise around an edge is confined
_GREY_SPREAD = 16  # between channels, of a grey pixel after JPEG
_MAX_COLOURS = 8  # of strokes
_MIN_BACKGROUND = 0.6  # share of a coloured background
_BLACK = (0, 0, 0)

SOFT_EDGES = "soft edges are split in the middle"
THRESHOLD = "grey pixels are split at level 128"
LOW_VALUES = "the brightest value counts as white"

# Collections count problems by these texts, so they name no file and no number.
NOT_BLACK_AND_WHITE = "not black and white"
MANY_COLOURS = "many colours, like a photograph: draw the hole in one colour on black"
NO_BACKGROUND = "colours that cover similar areas, or black or white on a colour: draw the hole in white on black"
HALF_TRANSPARENT = "large parts are half transparent: draw the hole in white on black"
TRANSPARENT = "nothing in it is opaque: draw the hole in white on black"
EITHER_LAYER = "the opaque and the transparent part could both be the hole: draw the hole in white on black"


@dataclass(frozen=True)
class Reading:
    """A mask, and how it was understood.

    mask: uint8 (H, W), 0 or 1, 1 = hole.
    hole: what was taken for the hole: "white", "black", "opaque", "transparent" or "coloured".
    colours: those of a coloured hole, such as "#ff0000"; the most common first.
    notes: what else was decided; of the constants above.
    """

    mask: np.ndarray
    hole: Literal["white", "black", "opaque", "transparent", "coloured"]
    notes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()


def read_mask(content: bytes, *, hole: Literal["white", "black"] = "white", threshold: bool = False) -> Reading:
    """Decode a PNG or JPEG and find its hole.

    - Black and white: the hole is white. If the brightest value of the mask is lower, it counts as white.
    - Strokes on a transparent layer: the hole is what is opaque, of any colour, if it is at most half of the picture.
    - A photograph with a transparent part: the hole is what is transparent.
    - Strokes in colour: the hole is every colour but the most common one.
    Soft edges are split in the middle.

    content: the bytes of the file.
    hole: the colour of the hole in masks of black and white.
    threshold: split masks without colours and transparency at grey level 128, for any share of grey pixels.
    Raises RejectedImageError for a file that is no picture and for one that has no single meaning.
    """
    colours, opacity = decode_layers(content)
    reach = max(
        _EDGE_REACH, round(_EDGE_SHARE * min(colours.shape[:2])), _JPEG_REACH if content.startswith(b"\xff\xd8") else 0
    )
    if opacity is not None and opacity.min() < 255 - _TOLERANCE:
        return _read_layer(colours, opacity, reach)
    if colours.ndim == 3 and np.ptp(colours, axis=2).max() > _GREY_SPREAD:
        return _read_colours(colours, reach)
    grey = colours if colours.ndim == 2 else colours[..., 1]
    light, notes = _split(grey, reach, NOT_BLACK_AND_WHITE, threshold)
    return Reading((light == (hole == "white")).astype(np.uint8), hole, notes)


def fit_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask, uint8 (H, W), 0 or 1, to (height, width) by nearest neighbour."""
    # This rule samples at the centres of pixels. INTER_NEAREST shifts the mask by up to half a pixel.
    return cv2.resize(np.ascontiguousarray(mask), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _split(values: np.ndarray, reach: int, problem: str, threshold: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Split grey levels, uint8 (H, W), into dark and light.

    reach: pixels that a soft edge may be away from dark and from light.
    Returns bool (H, W), True = light, and notes.
    Raises RejectedImageError with `problem` if too many pixels between dark and light are in no soft edge.
    """
    brightest = int(values.max())
    if brightest == 1:
        return values == 1, (LOW_VALUES,)
    notes = ()
    has_dark = values.min() <= _TOLERANCE
    if has_dark and _TOLERANCE < brightest < 255 - _TOLERANCE and not threshold:
        values, notes = cv2.convertScaleAbs(values, alpha=255 / brightest), (LOW_VALUES,)
    dark, light = values <= _TOLERANCE, values >= 255 - _TOLERANCE
    unclear = ~(dark | light)
    if np.count_nonzero(unclear) > _MAX_UNCLEAR * unclear.size:
        if not threshold:
            _check_soft(unclear, dark, light, reach, problem)
        notes = (*notes, THRESHOLD if threshold else SOFT_EDGES)
    return values >= 128, notes


def _check_soft(unclear: np.ndarray, one: np.ndarray, other: np.ndarray, reach: int, problem: str) -> None:
    """Raise RejectedImageError with `problem` unless the unclear pixels are edges between `one` and `other`."""
    num_stray = np.count_nonzero(unclear & ~_between(one, other, reach))
    if num_stray > _MAX_UNCLEAR * unclear.size or np.count_nonzero(unclear) > _MAX_SOFT * unclear.size:
        raise RejectedImageError(problem)


def _between(one: np.ndarray, other: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels that have both one and other pixels within `reach`, bool (H, W)."""
    square = np.ones((2 * reach + 1,) * 2, np.uint8)
    near = [cv2.dilate(part.astype(np.uint8), square).astype(bool) for part in (one, other)]
    return near[0] & near[1]


def _read_layer(colours: np.ndarray, opacity: np.ndarray, reach: int) -> Reading:
    """Read a mask with transparency, see `read_mask`. opacity: uint8 (H, W)."""
    if opacity.max() <= _TOLERANCE:
        raise RejectedImageError(TRANSPARENT)
    opaque, notes = _split(opacity, reach, HALF_TRANSPARENT)
    notes = tuple(note for note in notes if note != LOW_VALUES)
    if colours.ndim == 2:
        colours = np.repeat(colours[..., None], 3, axis=2)
    found, counts = np.unique(_numbers(colours[opaque]), return_counts=True)
    largest = np.argsort(-counts)[:_MAX_COLOURS]
    share = counts[largest].sum() / counts.sum()
    if share < 0.5:
        return Reading((~opaque).astype(np.uint8), "transparent", notes)
    has_black_and_white = {0x000000, 0xFFFFFF} <= set(found[largest].tolist())
    if share < 1 - _MAX_UNCLEAR or has_black_and_white or np.count_nonzero(opaque) > opaque.size / 2:
        raise RejectedImageError(EITHER_LAYER)
    return Reading(opaque.astype(np.uint8), "opaque", notes)


def _read_colours(colours: np.ndarray, reach: int) -> Reading:
    """Read a mask with strokes in colour, uint8 (H, W, 3), see `read_mask`."""
    background = _most_common(colours)
    is_background = _is_like(colours, background)
    is_coloured = np.ptp(background) > _GREY_SPREAD
    if is_background.mean() < (_MIN_BACKGROUND if is_coloured else 0.5):
        many = len(np.unique(_numbers(colours.reshape(-1, 3) >> 4))) > 4 * _MAX_COLOURS
        raise RejectedImageError(MANY_COLOURS if many else NO_BACKGROUND)
    strokes, is_soft = _find_strokes(colours, is_background, reach)
    for stroke in strokes:
        if not (np.ptp(stroke) > _GREY_SPREAD or (not is_coloured and not _is_like(stroke, _BLACK))):
            raise RejectedImageError(NO_BACKGROUND)
    distances = [np.abs(colours.astype(np.int16) - colour).sum(axis=2) for colour in (background, *strokes)]
    mask = (np.argmin(distances, axis=0) > 0).astype(np.uint8)
    names = tuple(f"#{number:06x}" for number in _numbers(np.array(strokes)))
    return Reading(mask, "coloured", (SOFT_EDGES,) if is_soft else (), names)


def _find_strokes(colours: np.ndarray, is_background: np.ndarray, reach: int) -> tuple[list[np.ndarray], bool]:
    """Return the colours of strokes, the most common first, and whether they have soft edges.

    Raises RejectedImageError for more colours than a person draws with.
    """
    strokes: list[np.ndarray] = []
    is_stroke = np.zeros_like(is_background)
    rest = ~is_background
    while np.count_nonzero(rest) > _MAX_UNCLEAR * rest.size or not strokes:
        if len(strokes) == _MAX_COLOURS:
            raise RejectedImageError(MANY_COLOURS)
        strokes.append(_most_common(colours[rest]))
        is_stroke |= _is_like(colours, strokes[-1])
        unclear = ~(is_background | is_stroke)
        rest = unclear & ~_between(is_background, is_stroke, reach)
    if np.count_nonzero(unclear) > _MAX_SOFT * unclear.size:
        raise RejectedImageError(MANY_COLOURS)
    return strokes, np.count_nonzero(unclear) > _MAX_UNCLEAR * unclear.size


def _most_common(colours: np.ndarray) -> np.ndarray:
    """Return the most common of the colours (..., 3), as int16 (3,)."""
    found, counts = np.unique(_numbers(colours.reshape(-1, 3)), return_counts=True)
    number = int(found[counts.argmax()])
    return np.array([number >> 16, number >> 8 & 255, number & 255], np.int16)


def _numbers(colours: np.ndarray) -> np.ndarray:
    """Return each colour of (N, 3) as one number, 0xRRGGBB."""
    return colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)


def _is_like(colours: np.ndarray, colour: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """Return where the colours (..., 3) are within the tolerance of one colour."""
    return (np.abs(colours.astype(np.int16) - np.asarray(colour, np.int16)) <= _TOLERANCE).all(axis=-1)
