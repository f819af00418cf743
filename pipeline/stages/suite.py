"""Images and trained generators -> masks and results of one more suite, beside that of params.yaml."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.shards.column import Column, check_alignment
from datasets.writing.derived import derive_column
from datasets.writing.staging import ColumnTarget
from files.durable import check_replaceable
from files.objects import StoreConfig
from jobs.evaluation.results import OVERALL, Summary, write_json
from masks.masks import open_masks
from pipeline.code import stage_code
from pipeline.columns import open_column
from pipeline.evaluating import Place, evaluate_job, headline_of, make_job
from pipeline.inputs import StageInputs
from pipeline.layout import BASELINES_ROW, costs_file, metrics_file, suite_folder, unfinished_folder
from pipeline.lineage.records import write_record
from pipeline.params import Params
from pipeline.suite_files import SuiteFile, SuiteFileError, check_suite, read_suite
from pipeline.suite_masks import SuiteContent
from pipeline.trained import open_receipt
from pipeline.verbosity import say
from pipeline.writing import task_runner

_ALL = "suites"


def run(params: Params, name: str) -> None:
    """Write suites/<name>: the masks of the suite, and the results of every generator and of the baselines.

    Also writes metrics/suites/<name>, a file per row, and costs/suites/<name>.json.

    name: of a file in conf/suite.
    Raises SuiteFileError for a suite that is missing or is of other images than params.yaml, CheckpointError for
    weights of another generator, ShardError for images that are not as params.yaml describes them.
    """
    suite = read_suite(name)
    check_suite(name, suite, params)
    inputs = StageInputs.read(_ALL, name)
    images = open_column(params, "image", suite.split)
    if suite.images not in (None, images.manifest.records):
        raise SuiteFileError(
            f"suite {name} has {suite.images:,} images, but {images.folder} has {images.manifest.records:,}"
        )
    images.verify()
    for generator in params.generators:
        open_receipt(generator)
    check_replaceable(suite_folder(name))
    masks = _write_masks(params, name, suite, images, inputs)
    staged = unfinished_folder(_ALL) / name
    summaries: dict[str, Summary] = {}
    costs: dict[str, Mapping[str, Any]] = {}
    for row in (*params.generators, BASELINES_ROW):
        job = make_job(params, row, images, masks)
        job = replace(job, bins=tuple(suite.ranges), smallest_sha256=suite.smallest_sha256)
        place = Place(inputs=inputs, staged=staged / row)
        summaries[row], of_rows = evaluate_job(params, job, images, masks, place)
        costs |= of_rows
    inputs.check_unchanged()
    _move(name, staged, summaries)
    write_json(costs_file(f"{_ALL}/{name}"), costs)
    write_record(inputs)
    say(f"evaluated suite {name}, {next(iter(summaries.values())).suite}: {suite_folder(name)}")


def _write_masks(params: Params, name: str, suite: SuiteFile, images: Column, inputs: StageInputs) -> Column:
    """Write the masks of all images of the split, unless they are there."""
    folder = (suite_folder(name) / "mask").resolve()
    target = ColumnTarget(
        name="mask",
        folder=folder,
        staging=folder.with_name(".mask.partial"),
        code=stage_code("masks"),
        store=StoreConfig(),
        check_inputs=inputs.check_unchanged,
    )
    described = {"masks": suite.masks.describe(), "seed": suite.seed, "hole": 255, "bins": dict(suite.ranges)}
    derive_column(
        target,
        {suite.split: images.folder.resolve()},
        SuiteContent(suite.masks, open_masks(suite.masks), suite.seed, suite.ranges),
        described,
        task_runner(params),
        note=folder.with_name("mask.json"),
    )
    masks = Column(folder / suite.split)
    check_alignment(images, masks)
    return masks


def _move(name: str, staged: Path, summaries: dict[str, Summary]) -> None:
    """Move finished results to their places, and write the metrics of each row."""
    results, metrics = suite_folder(name) / "results", metrics_file(f"{_ALL}/{name}").with_suffix("")
    for folder in (results, metrics):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for evaluation, summary in summaries.items():
        (staged / evaluation / "results").replace(results / evaluation)
        for row, groups in summary.rows.items():
            write_json(metrics / f"{row}.json", headline_of(groups[OVERALL]))
    shutil.rmtree(staged)


VERB = {
    "help": "stage: masks and results of one more suite",
    "example": "suite photos",
    "arguments": {"name": {"help": "a file of conf/suite"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage for one suite."""
    run(params, arguments.name)
    return 0
