"""Image shards -> edge shards, with the same keys in the same order."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from datasets.writing.derived import ColumnContent, derive_column
from files.pictures import encode_grey_png
from jobs.cluster.launch import keep_workers
from pipeline.inputs import StageInputs
from pipeline.layout import made_note
from pipeline.lineage.records import write_record
from pipeline.params import Params
from pipeline.writing import column_target, hold_columns, image_folders, task_runner


@dataclass(frozen=True)
class EdgeContent(ColumnContent):
    """Canny edges of the whole image, stored as 0 and 255."""

    config: EdgeConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(canny_edges(image, self.config) * 255)}


@hold_columns("edges", read=["image"])
def run(params: Params) -> None:
    """Write shards/edges/<column>/<split> for every column in `edges` and every split of shards/image.

    A column that would get the same bytes is kept. Everything else in shards/edges is removed.
    """
    inputs = StageInputs.read("edges")
    _remove_other_columns(params)
    with keep_workers(params.cluster.num_workers if len(params.edges) > 1 else 0):
        for column, config in params.edges.items():
            derive_column(
                column_target(params, column, inputs),
                image_folders(params),
                EdgeContent(config),
                asdict(config),
                task_runner(params),
                note=made_note(column),
            )
    write_record(inputs)


def _remove_other_columns(params: Params) -> None:
    for path in Path("shards/edges").glob("*"):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif path.name not in params.edges:
            shutil.rmtree(path)
            made_note(path.name).unlink(missing_ok=True)
