"""Image shards -> the frozen masks of the evaluation suite, with the same keys in the same order."""

from __future__ import annotations

from datasets.writing.derived import derive_column
from masks.hole_ratio import BINS
from masks.masks import open_masks
from pipeline.columns import open_manifest
from pipeline.inputs import StageInputs
from pipeline.layout import column_folder, image_splits
from pipeline.lineage.records import write_record
from pipeline.params import Params, ParamsError
from pipeline.suite_masks import RATIO_BINS, SuiteContent
from pipeline.writing import column_target, hold_columns, task_runner


@hold_columns("mask", read=["image"])
def run(params: Params) -> None:
    """Write shards/mask/<split> for the evaluation split.

    Raises ParamsError if the data set has no such split, ManifestError if the split is not complete, ShardError if it
    is not as params.yaml describes it, MaskFilesError if a mask collection differs from its declaration.
    """
    inputs = StageInputs.read("masks")
    split, config = params.suite.split, params.suite.masks
    splits = image_splits(complete_only=False)
    if splits and split not in splits:
        raise ParamsError(f"params.yaml: suite.split is {split!r}; the data set has {', '.join(splits)}")
    if splits:
        open_manifest(params, "image", split)
    derive_column(
        column_target(params, "mask", inputs),
        {split: column_folder("image", split).resolve()},
        SuiteContent(config, open_masks(config), params.seed, RATIO_BINS),
        {"masks": config.describe(), "seed": params.seed, "hole": 255, "bins": BINS},
        task_runner(params),
    )
    write_record(inputs)
