"""The kinds of drawn holes: whole masks as each paper draws them, and pieces from which a mask of a bin is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masks import lama
from masks.config import FAMILY_KINDS, PAPER_SIZE, MaskConfig
from masks.irregular import random_occlusion
from masks.rectangles import centre_rectangle, random_rectangle
from masks.strokes import random_strokes

Piece = Callable[[np.random.Generator, int, int, float, int], np.ndarray]
"""piece(rng, height, width, zoom, number) -> mask uint8 (height, width), 1 = hole.

zoom: factor in (0, 1] on all lengths.
number: pieces that the mask has so far.
"""


@dataclass(frozen=True)
class Holes:
    """Holes of one kind. Lengths come from `config`.

    max_hole_ratio: whole masks with a larger ratio are drawn again.
    num_whole_draws: whole masks to try for a bin before a mask is built from pieces.
    min_pieces: fewest pieces of a mask that is built; 0 if the kind has no pieces.
    """

    config: MaskConfig
    max_hole_ratio: ClassVar[float] = 1.0
    num_whole_draws: ClassVar[int] = 0
    min_pieces: ClassVar[int] = 1

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Draw a whole mask uint8 (height, width), 1 = hole, with any hole ratio."""
        raise NotImplementedError

    def pieces(self, rng: np.random.Generator, height: int, width: int) -> Piece:
        """Return the function that draws the pieces of one mask."""
        return self.piece

    def piece(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        """Draw one piece; see `Piece`."""
        raise NotImplementedError


class Centre(Holes):
    """The square in the centre: one mask and no pieces."""

    num_whole_draws = 1
    min_pieces = 0

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return centre_rectangle(height, width, side=self.config.centre_side, scale=min(height, width) / PAPER_SIZE)


class Rectangles(Holes):
    """Random boxes."""

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return self.piece(rng, height, width, 1.0, 0)

    def piece(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        return random_rectangle(
            rng,
            height,
            width,
            side=self.config.rectangle_side,
            max_shrink=self.config.rectangle_max_shrink,
            scale=zoom * min(height, width) / PAPER_SIZE,
        )


class Strokes(Holes):
    """Brush strokes: several in a whole mask, one in a piece."""

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return self._draw(rng, height, width, 1.0, self.config.max_strokes)

    def piece(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        return self._draw(rng, height, width, zoom, 1)

    def _draw(self, rng: np.random.Generator, height: int, width: int, zoom: float, max_strokes: int) -> np.ndarray:
        return random_strokes(
            rng,
            height,
            width,
            max_strokes=max_strokes,
            min_brush_width=self.config.min_brush_width,
            max_brush_width=self.config.max_brush_width,
            zoom=zoom,
        )


class FreeForm(Holes):
    """One box, then strokes."""

    min_pieces = 2  # the box and a stroke

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return Rectangles(self.config).mask(rng, height, width) | Strokes(self.config).mask(rng, height, width)

    def piece(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        kind = Rectangles if number == 0 else Strokes
        return kind(self.config).piece(rng, height, width, zoom, number)


class Irregular(Holes):
    """Occlusions. The paper defines no whole mask: every mask is built from pieces."""

    def piece(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        return random_occlusion(rng, height, width, zoom=zoom)


class LamaHoles(Holes):
    """The thin, medium and thick families. The pieces of one mask are all boxes or all strokes."""

    max_hole_ratio = lama.MAX_HOLE_RATIO
    num_whole_draws = 50

    def mask(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return lama.random_family_mask(rng, height, width, lama.family_for(self.config.kind, height, width))

    def pieces(self, rng: np.random.Generator, height: int, width: int) -> Piece:
        has_boxes = lama.draws_boxes(rng, lama.family_for(self.config.kind, height, width))
        return self._box if has_boxes else self._strokes

    def _box(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        family = lama.family_for(self.config.kind, height, width)
        return lama.random_boxes(rng, height, width, family, count=1, zoom=zoom)

    def _strokes(self, rng: np.random.Generator, height: int, width: int, zoom: float, number: int) -> np.ndarray:
        family = lama.family_for(self.config.kind, height, width)
        num_squares = max(height, width) // min(height, width)  # strokes per piece grow with the aspect ratio
        return lama.random_chains(rng, height, width, family, count=num_squares, first=number, zoom=zoom)


class LamaTraining(LamaHoles):
    """The masks of LaMa's training, of any hole ratio."""

    max_hole_ratio = 1.0


_KINDS: dict[str, type[Holes]] = {
    "free_form": FreeForm,
    "strokes": Strokes,
    "rectangle": Rectangles,
    "centre": Centre,
    "irregular": Irregular,
    **dict.fromkeys(FAMILY_KINDS, LamaHoles),
    "lama_train": LamaTraining,
}


def holes_of(config: MaskConfig) -> Holes:
    """Return the holes of the config's kind. Raises ValueError for kind "files", which is read and not drawn."""
    if config.kind == "files":
        raise ValueError("masks of kind files are read, not drawn; see masks/collection.py")
    return _KINDS[config.kind](config)
