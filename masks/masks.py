"""The masks of a run, from wherever its MaskConfig says: drawn, or read from a collection on the user's disk."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from masks.collection import MaskCollection
from masks.config import MaskConfig
from masks.drawn import DrawnMasks


class Masks(Protocol):
    """Masks uint8 (height, width), 0 or 1, 1 = hole; pure functions of the arguments and of the MaskConfig."""

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        """The mask of a seed."""

    def draw_in_bin(self, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
        """The mask of a seed, with hole ratio in (low, high]. Raises ValueError if there is none."""


def open_masks(config: MaskConfig) -> Masks:
    """What draws the masks of a MaskConfig; picklable. Reads a whole collection: about a second per 1000 files.

    Raises MaskFilesError for a collection that is not what the config declares.
    """
    return DrawnMasks(config) if config.files is None else MaskCollection(config.files)
