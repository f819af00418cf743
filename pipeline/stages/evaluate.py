"""Weights and mask shards -> metrics of every pair and in total, for one generator, the baselines or other rows."""

from __future__ import annotations

import contextlib
import logging
import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from files.durable import check_replaceable
from jobs.evaluation.results import OVERALL, Group, Summary, write_json
from pipeline.columns import open_column
from pipeline.declared_rows import DeclaredRows, fetch_rows
from pipeline.evaluating import Place, evaluate_job, headline_of, make_job, means_of
from pipeline.inputs import StageInputs
from pipeline.layout import (
    GROUP_ROWS,
    OTHERS_ROW,
    SUMMARY_NAME,
    costs_file,
    metrics_file,
    results_folder,
    unfinished_folder,
)
from pipeline.lineage.records import write_record
from pipeline.params import Params, check_listed
from pipeline.trained import open_receipt
from pipeline.verbosity import say

log = logging.getLogger(__name__)


def run(params: Params, row: str) -> None:
    """Write results/<row> (scores of every pair, summary, gallery), and metrics/<row>.json or a file per baseline.

    Also writes costs/<row>.json, and logs a generator's metrics to the tracked run of its training, if the server
    answers.

    row: a generator, "baselines", or "others" for the rows that `evaluate.rows` lists.
    Raises ParamsError for another row, CheckpointError for weights of another generator, ShardError for images or masks
    that are not as params.yaml describes them, ExternalError for an external row that lacks a picture, ModelError for a
    registered version that cannot be loaded.
    """
    if row not in GROUP_ROWS:
        check_listed(params, row)
        open_receipt(row)
    inputs = StageInputs.read(row) if row in GROUP_ROWS else StageInputs.read("evaluate", row)
    images = open_column(params, "image", params.suite.split)
    masks = open_column(params, "mask", params.suite.split, images=images)
    images.verify()
    masks.verify()
    check_replaceable(results_folder(row))
    staged = unfinished_folder(row)
    shutil.rmtree(staged / "registered", ignore_errors=True)  # of a killed evaluation
    declared = fetch_rows(params, staged / "registered") if row == OTHERS_ROW else DeclaredRows()
    job = make_job(params, row, images, masks)
    job = replace(job, registered=declared.registered, external=declared.external)
    place = Place(inputs=inputs, staged=staged, about=declared.about)
    summary, costs = evaluate_job(params, job, images, masks, place)
    _write_metrics(staged, row, summary)
    inputs.check_unchanged()
    _move(staged, row)
    write_record(inputs)
    write_json(costs_file(row), costs)
    if row not in GROUP_ROWS:
        _track(row, summary, costs[row])
    say(f"evaluated {row}: {results_folder(row)}, {_metrics_place(row)}")


def _metrics_place(row: str) -> Path:
    """Return the file of a generator's metrics, or the folder of those of several rows."""
    return metrics_file(row) if row not in GROUP_ROWS else metrics_file(row).with_suffix("")


def _write_metrics(staged: Path, row: str, summary: Summary) -> None:
    """Write one file per row of the results, with equal keys in all: a line each in `dvc metrics show`.

    Of the untrained generator, and of bins, the figures are in the summary alone.
    """
    place = staged / _metrics_place(row).name
    if row not in GROUP_ROWS:
        write_json(place, headline_of(summary.rows[row][OVERALL]))
        return
    shutil.rmtree(place, ignore_errors=True)  # of a killed evaluation
    place.mkdir(parents=True)
    for name, groups in summary.rows.items():
        write_json(place / f"{name}.json", headline_of(groups[OVERALL]))


def _move(staged: Path, row: str) -> None:
    """Move finished results and metrics to their places, so that a kill leaves no half of them there."""
    for source, target in (
        (staged / "results", results_folder(row)),
        (staged / _metrics_place(row).name, _metrics_place(row)),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        source.replace(target)
    shutil.rmtree(staged)
    with contextlib.suppress(OSError):  # evaluations of other rows are unfinished
        staged.parent.rmdir()


def _track(generator: str, summary: Summary, cost: Mapping[str, float]) -> None:
    """Attach the metrics of the trained generator, and what its fills cost, to the registered version of its weights.

    If there is no such version, or if the server does not answer, a warning is logged.
    """
    from jobs.tracking.mlflow_registry import newest_version, reason  # here, since mlflow takes seconds to import
    from pipeline.lineage.evaluations import attach_evaluation

    receipt = open_receipt(generator)
    version = {"identity": receipt.experiment, "weights_sha256": receipt.weights_sha256}
    try:
        found = newest_version(f"inpaint-{generator}", version)
        if found is None:
            problem = "no registered version has its weights; run: python -m pipeline deliver"
        else:
            points = _metric_points(summary.rows[generator]) | _cost_points(cost)
            attach_evaluation(found, asdict(receipt), results_folder(generator) / SUMMARY_NAME, points)
            return
    except Exception as error:  # every client and store raises its own kinds
        problem = reason(error)
    log.warning(
        "%s is evaluated, but its run is not updated (%s); later: python -m pipeline evaluate %s",
        generator, problem, generator,
    )  # fmt: skip


def _metric_points(groups: Mapping[str, Group]) -> dict[str, float]:
    """Name the means as the run has them: evaluation/<metric>, and evaluation/<bin>/<metric> of each bin."""
    return {
        f"evaluation/{metric}" if name == OVERALL else f"evaluation/{name}/{metric}": mean
        for name, group in groups.items()
        for metric, mean in means_of(group).items()
    }


def _cost_points(cost: Mapping[str, float]) -> dict[str, float]:
    return {f"evaluation/{name}": cost[name] for name in ("seconds_per_image", "peak_device_bytes")}


VERB = {
    "help": "stage: score one generator, the baselines, or the other rows",
    "example": "evaluate edge_connect",
    "arguments": {"row": {"help": 'a generator that params.yaml lists, "baselines" or "others"', "completes": "rows"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage for one row of the results."""
    run(params, arguments.row)
    return 0
