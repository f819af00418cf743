"""Image shards -> edge shards, and the frozen masks of the evaluation suite, with the same keys in the same order."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.decode import encode_grey_png
from datasets.edges import EdgeConfig, canny_edges
from datasets.plan import derive_seed
from jobs.launch import workers_at_hand
from jobs.mask_files import Masks, open_masks
from masks.hole_ratio import BINS, member_of_bin
from masks.sampler import MaskConfig
from pipeline.columns import Members, image_splits, write_column
from pipeline.layout import column_folder, made_note
from pipeline.params import Params, ParamsError


@dataclass(frozen=True)
class EdgeMembers(Members):
    """Canny edges of the whole image, stored as 0 and 255."""

    config: EdgeConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(canny_edges(image, self.config) * 255)}


@dataclass(frozen=True)
class SuiteMembers(Members):
    """A mask per hole-ratio bin, a function of (key, seed, bin), stored with 255 = hole."""

    config: MaskConfig
    masks: Masks
    seed: int

    @property
    def basis(self) -> Any:
        return "suite", self.config.described(), self.seed

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        members = {}
        for name, low, high in BINS:
            mask = self.masks.draw_in_bin(*image.shape[:2], low, high, derive_seed(self.seed, "suite", key, name))
            members[member_of_bin("mask", name)] = encode_grey_png(mask * 255)
        return members


def run_edges(params: Params) -> None:
    """Write shards/edges/<column>/<split> for every column that `edges` names and every split of shards/image.

    A column that would become the same stays as it is; one that `edges` no longer names, and whatever else lies there,
    is removed.
    """
    for path in Path("shards/edges").glob("*"):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif path.name not in params.edges:
            shutil.rmtree(path)
            made_note(path.name).unlink(missing_ok=True)
    with workers_at_hand(params.cluster.num_workers if len(params.edges) > 1 else 0):
        for column, config in params.edges.items():
            write_column(params, image_splits(), column, EdgeMembers(config), asdict(config), keep=True)


def run_masks(params: Params) -> None:
    """Write shards/mask/<split> for the split that is evaluated on.

    Raises ParamsError for a split that there is not, MaskFilesError for a collection that is not as declared.
    """
    if not column_folder("image", params.suite.split).is_dir():
        there = ", ".join(sorted(path.name for path in column_folder("image", "").iterdir()))
        raise ParamsError(f"params.yaml: suite.split is {params.suite.split!r}; the data set has {there}")
    members = SuiteMembers(params.suite.masks, open_masks(params.suite.masks), params.seed)
    parameters = {"masks": params.suite.masks.described(), "seed": params.seed, "hole": 255, "bins": BINS}
    write_column(params, [params.suite.split], "mask", members, parameters)
