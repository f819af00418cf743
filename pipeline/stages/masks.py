"""Image shards -> the frozen masks of the evaluation suite, with the same keys in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from files.pictures import encode_grey_png
from files.seeds import derive_seed
from masks.config import MaskConfig
from masks.hole_ratio import BINS, member_of_bin
from masks.masks import Masks, open_masks
from pipeline.columns import ColumnContent, derive_column
from pipeline.layout import column_folder
from pipeline.params import Params, ParamsError


@dataclass(frozen=True)
class SuiteContent(ColumnContent):
    """A mask per hole-ratio bin, a function of (key, seed, bin), stored with 255 = hole."""

    config: MaskConfig
    masks: Masks
    seed: int

    @property
    def inputs(self) -> Any:
        return "suite", self.config.describe(), self.seed

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        members = {}
        for name, low, high in BINS:
            mask = self.masks.draw_in_bin(*image.shape[:2], low, high, derive_seed(self.seed, "suite", key, name))
            members[member_of_bin("mask", name)] = encode_grey_png(mask * 255)
        return members


def run(params: Params) -> None:
    """Write shards/mask/<split> for the split that is evaluated on.

    Raises ParamsError for a split that there is not, MaskFilesError for a collection that is not as declared.
    """
    if not column_folder("image", params.suite.split).is_dir():
        there = ", ".join(sorted(path.name for path in column_folder("image", "").iterdir()))
        raise ParamsError(f"params.yaml: suite.split is {params.suite.split!r}; the data set has {there}")
    members = SuiteContent(params.suite.masks, open_masks(params.suite.masks), params.seed)
    parameters = {"masks": params.suite.masks.describe(), "seed": params.seed, "hole": 255, "bins": BINS}
    derive_column(params, "masks", [params.suite.split], "mask", members, parameters)
