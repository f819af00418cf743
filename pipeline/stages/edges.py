"""Image shards -> edge shards, with the same keys in the same order."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from files.pictures import encode_grey_png
from jobs.cluster.launch import keep_ray
from pipeline.columns import ColumnContent, derive_column, image_splits
from pipeline.layout import made_note
from pipeline.params import Params


@dataclass(frozen=True)
class EdgeContent(ColumnContent):
    """Canny edges of the whole image, stored as 0 and 255."""

    config: EdgeConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(canny_edges(image, self.config) * 255)}


def run(params: Params) -> None:
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
    with keep_ray(params.cluster.num_workers if len(params.edges) > 1 else 0):
        for column, config in params.edges.items():
            derive_column(params, "edges", image_splits(), column, EdgeContent(config), asdict(config), keep=True)
