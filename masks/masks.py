"""Open the masks that a MaskConfig describes: drawn, or read from a collection on the user's disk."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from masks.collection import MaskCollection
from masks.config import MaskConfig
from masks.drawn import DrawnMasks


class Masks(Protocol):
    """Source of masks uint8 (height, width), 0 or 1, 1 = hole: pure functions of the arguments and the MaskConfig."""

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        """Return the mask of a seed."""

    def draw_in_bin(self, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
        """Return the mask of a seed with a hole ratio in (low, high]. Raises UserError if none is found."""


def open_masks(config: MaskConfig) -> Masks:
    """Return the masks of a MaskConfig; picklable. A collection is read whole, in about a second per 1000 files.

    Raises MaskFilesError if a collection does not match the config.
    """
    return DrawnMasks(config) if config.files is None else MaskCollection(config.files)
