"""Read a picture of a user's, its mask and its sketch, and refuse what cannot be filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from files.errors import UserError
from files.pictures import RejectedImageError
from files.user_pictures import UserPicture, read_picture
from masks.hole_ratio import hole_ratio
from masks.reading import Reading, fit_mask, read_mask
from pipeline.inpainting.listing import Task

MAX_HOLE_RATIO = 0.95
"""A larger hole is more likely an inverted mask than a wish."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class Inputs:
    """What is filled.

    mask: uint8 (H, W), 1 = hole.
    sketch: uint8 (H, W), 1 = line, or None.
    hole: what was taken for the hole, and its share of the picture, as text.
    notes: what else was decided.
    """

    picture: UserPicture
    mask: np.ndarray
    sketch: np.ndarray | None
    hole: str
    notes: tuple[str, ...]


def read_inputs(task: Task, hole: Literal["white", "black"]) -> Inputs:
    """Read the files of one task. hole: the colour of the hole in a mask of black and white.

    Raises UserError for a file that cannot be used, for other proportions of the mask, for a mask without a hole or
    with a hole larger than MAX_HOLE_RATIO of the picture, and for a sketch of another size.
    """
    picture = _read(task.image, read_picture, "give a PNG or JPEG")
    size = picture.pixels.shape[:2]
    reading = _read(task.mask, lambda content: read_mask(content, hole=hole), "give a PNG with a white hole on black")
    mask, notes = _fit(reading, size, task.image, task.mask)
    what = f"the {reading.hole} part of {task.mask}" + (f" ({', '.join(reading.colours)})" if reading.colours else "")
    share = hole_ratio(mask)
    if not 0 < share <= MAX_HOLE_RATIO:
        raise UserError(
            f"{what}, {share:.1%} of the picture, would be filled; give a mask with a hole of at most "
            f"{MAX_HOLE_RATIO:.0%}, and not without one; --hole tells whether white or black is the hole"
        )
    sketch = None
    if task.sketch is not None:
        sketch, how = _read_sketch(task.sketch, size, task.image)
        notes = (*notes, *how)
    return Inputs(picture, mask, sketch, f"{what}, {share:.1%} of the picture", notes)


def _read(path: Path, decode: Callable[[bytes], Read], remedy: str) -> Read:
    try:
        return decode(path.read_bytes())
    except RejectedImageError as error:
        has_remedy = "; " in str(error)
        raise UserError(f"{path}: {error}" if has_remedy else f"{path}: {error}; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from error


def _fit(
    reading: Reading, size: tuple[int, int], image_path: Path, mask_path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the mask in the size of the image, and the notes on it. Raises UserError for another aspect ratio."""
    height, width = size
    mask_height, mask_width = reading.mask.shape
    if (mask_height, mask_width) == (height, width):
        return reading.mask, reading.notes
    coarsest_pixel = max(height, width, mask_height, mask_width)
    if abs(mask_width * height - mask_height * width) > coarsest_pixel:
        raise UserError(
            f"{mask_path} is {mask_width}x{mask_height}, {image_path} is {width}x{height}; give a mask of the image's "
            "size or proportions"
        )
    resized = f"the mask is resized from {mask_width}x{mask_height} to {width}x{height}"
    return fit_mask(reading.mask, height, width), (*reading.notes, resized)


def _read_sketch(path: Path, size: tuple[int, int], image_path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the lines of a sketch, uint8 (H, W), 1 = line, and notes on what was taken for them.

    In a sketch of black and white the lines are the smaller part. Thin lines may be soft: grey is split in the middle.
    """
    remedy = "draw lines in one colour on white or black"
    reading = _read(path, lambda content: read_mask(content, threshold=True), remedy)
    lines, colour = reading.mask, reading.hole
    if colour == "white" and lines.mean() > 0.5:
        lines, colour = 1 - lines, "black"
    if lines.shape != size:
        height, width = lines.shape
        raise UserError(f"{path} is {width}x{height}, {image_path} is {size[1]}x{size[0]}; draw it at the image's size")
    return lines, (f"following the {colour} lines of {path}", *reading.notes)
