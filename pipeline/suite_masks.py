"""The masks of a suite as a column: a function of the image's key, the seed and the name of the mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.writing.derived import ColumnContent
from files.pictures import encode_grey_png
from files.seeds import derive_seed
from masks.config import MaskConfig
from masks.hole_ratio import BINS, member_of_bin
from masks.masks import Masks

Ranges = Mapping[str, tuple[float, float] | None]
"""Name of a mask -> (low, high], the range of its hole ratio; None = any ratio that its kind has."""

RATIO_BINS: Ranges = {name: (low, high) for name, low, high in BINS}


@dataclass(frozen=True)
class SuiteContent(ColumnContent):
    """The masks of one image, stored with 255 = hole."""

    config: MaskConfig
    masks: Masks
    seed: int
    ranges: Ranges

    @property
    def inputs(self) -> Any:
        return "suite", self.config.describe(), self.seed, dict(self.ranges)

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        members = {}
        for name, ratios in self.ranges.items():
            seed = derive_seed(self.seed, "suite", key, name)
            members[member_of_bin("mask", name)] = encode_grey_png(self._draw(image, seed, ratios) * 255)
        return members

    def _draw(self, image: np.ndarray, seed: int, ratios: tuple[float, float] | None) -> np.ndarray:
        size = image.shape[:2]
        return self.masks.draw(*size, seed) if ratios is None else self.masks.draw_in_bin(*size, *ratios, seed)
