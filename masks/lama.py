"""Draw the holes of LaMa's training, and the thin, medium and thick holes of its evaluation.

Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022. All numbers and the
order of draws are those of the authors' code and of its files of settings: one for training at 256 pixels, and two
sizes by three families for evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

FamilyName = Literal["thin", "medium", "thick", "lama_train"]

MAX_HOLE_RATIO = 0.5  # of evaluation; the authors drop masks with more
MAX_SEGMENTS = 5
MIN_LENGTH, MIN_WIDTH = 10, 5  # at both sizes
ANGLE_OFFSET, NUM_ANGLES = 0.01, 4  # 0.01, 1.01, 2.01, 3.01 radians from the vertical


@dataclass(frozen=True)
class Boxes:
    """The boxes of a family. All limits are inclusive.

    max_count: boxes in one mask, at least 1.
    min_side, max_side: pixels.
    margin: pixels between a box and the image's border.
    """

    max_count: int
    min_side: int
    max_side: int
    margin: int


@dataclass(frozen=True)
class Family:
    """One of the authors' files of settings.

    size: short side, in pixels, of the image to which all lengths refer.
    min_strokes, max_strokes: strokes in one mask, inclusive; the authors' code draws one more than `max_times`.
    max_width, max_length: pixels, exclusive; a draw from [0, max) is added to MIN_WIDTH and MIN_LENGTH.
    boxes: None for a family without boxes.
    box_chance: probability of boxes in place of strokes, where a family has them. Evaluation has the weights 0.3 : 1.
    """

    size: int
    min_strokes: int
    max_strokes: int
    max_width: int
    max_length: int
    boxes: Boxes | None
    box_chance: float = 0.3 / 1.3


FAMILIES: dict[tuple[str, int], Family] = {
    ("thin", 256): Family(256, 4, 51, 10, 40, None),
    ("thin", 512): Family(512, 4, 71, 20, 100, None),
    ("medium", 256): Family(256, 4, 6, 50, 100, Boxes(5, 10, 50, 0)),
    ("medium", 512): Family(512, 4, 11, 100, 200, Boxes(5, 30, 150, 0)),
    ("thick", 256): Family(256, 1, 6, 100, 200, Boxes(3, 30, 150, 10)),
    ("thick", 512): Family(512, 1, 6, 250, 450, Boxes(4, 30, 300, 10)),
    ("lama_train", 256): Family(256, 1, 6, 100, 200, Boxes(4, 30, 150, 10), box_chance=1 / 2),
}


def family_for(name: FamilyName, height: int, width: int) -> Family:
    """Return the settings for size 512 if the short side is at least 512 pixels and there are any, else those for 256.

    Training has none for 512.
    """
    at_256 = FAMILIES[name, 256]
    return FAMILIES.get((name, 512), at_256) if min(height, width) >= 512 else at_256


def random_family_mask(rng: np.random.Generator, height: int, width: int, family: Family) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole, made of strokes or of boxes; any hole ratio.

    At sizes other than the authors' 256 and 512, lengths scale with the short side.
    """
    if draws_boxes(rng, family):
        return random_boxes(rng, height, width, family, count=int(rng.integers(1, family.boxes.max_count + 1)))
    count = int(rng.integers(family.min_strokes, family.max_strokes + 1))
    return random_chains(rng, height, width, family, count=count)


def draws_boxes(rng: np.random.Generator, family: Family) -> bool:
    """Draw whether a mask is made of boxes; otherwise it is made of strokes."""
    return family.boxes is not None and rng.random() < family.box_chance


def random_chains(
    rng: np.random.Generator, height: int, width: int, family: Family, *, count: int, first: int = 0, zoom: float = 1.0
) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole, of `count` strokes.

    A stroke is a chain of one to five segments from a random start, clipped to [0, width] x [0, height]. Each segment
    has its own length, its own width and one of four directions. Every other stroke is mirrored. OpenCV rounds ends.

    first: index of the first stroke; strokes with an even index are mirrored.
    zoom: factor on lengths and widths.
    """
    mask = np.zeros((height, width), np.uint8)
    scale = zoom * min(height, width) / family.size
    num_segments = rng.integers(1, MAX_SEGMENTS + 1, size=count)
    total = int(num_segments.sum())
    angles = ANGLE_OFFSET + rng.integers(NUM_ANGLES, size=total)
    lengths = scale * (MIN_LENGTH + rng.integers(family.max_length, size=total))
    widths = scale * (MIN_WIDTH + rng.integers(family.max_width, size=total))
    starts = zip(rng.integers(width, size=count).tolist(), rng.integers(height, size=count).tolist(), strict=True)
    steps = zip((lengths * np.sin(angles)).tolist(), (lengths * np.cos(angles)).tolist(), widths.tolist(), strict=True)
    for index, (x, y) in enumerate(starts):
        mirror = -1 if (first + index) % 2 == 0 else 1
        for _ in range(num_segments[index]):
            step_x, step_y, brush_width = next(steps)
            end = int(min(max(x + mirror * step_x, 0), width)), int(min(max(y + step_y, 0), height))
            cv2.line(mask, (x, y), end, 1, max(1, int(brush_width)))
            x, y = end
    return mask


def random_boxes(
    rng: np.random.Generator, height: int, width: int, family: Family, *, count: int, zoom: float = 1.0
) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole, of `count` boxes at least a margin away from the image's border.

    zoom: factor on the sides of boxes.
    """
    mask = np.zeros((height, width), np.uint8)
    scale = min(height, width) / family.size
    margin = int(family.boxes.margin * scale)
    room = min(height, width) - 2 * margin
    shortest = min(room, max(1, int(zoom * scale * family.boxes.min_side)))
    # As in the authors' code, a side is less than the room and less than max_side + 1.
    longest = max(shortest, min(room - 1, math.ceil(zoom * scale * family.boxes.max_side)))
    for _ in range(count):
        box_width, box_height = (int(side) for side in rng.integers(shortest, longest + 1, size=2))
        left = int(rng.integers(margin, width - margin - box_width + 1))
        top = int(rng.integers(margin, height - margin - box_height + 1))
        mask[top : top + box_height, left : left + box_width] = 1
    return mask
