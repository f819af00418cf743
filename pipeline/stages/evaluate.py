"""Weights and mask shards -> metrics of every pair and in total, for one generator, the baselines or other rows."""

from __future__ import annotations

import contextlib
import logging
import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from datasets.shards.column import Column
from datasets.shards.manifest import Manifest, write_manifest
from datasets.shards.records import write_records
from datasets.writing.tars import NewRecord, write_shard
from files.durable import check_replaceable
from jobs.cluster.launch import map_tasks
from jobs.evaluation.catalogue import HEADLINE
from jobs.evaluation.costs import add_costs
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.loop import PartResult, divide_images, evaluate_part
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Group, Summary, write_json, write_scores, write_summary
from jobs.evaluation.suite import suite_id
from jobs.evaluation.summary import describe_sources, late_pairs, summarise
from pipeline.columns import open_column
from pipeline.declared_rows import DeclaredRows, fetch_rows
from pipeline.inputs import StageInputs
from pipeline.layout import (
    GALLERY_NAME,
    GROUP_ROWS,
    OTHERS_ROW,
    SCORES_NAME,
    SUMMARY_NAME,
    costs_file,
    metrics_file,
    model_folder,
    results_folder,
    unfinished_folder,
)
from pipeline.lineage.records import write_record
from pipeline.params import Params, check_listed
from pipeline.progress import Bar
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
    shutil.rmtree(staged, ignore_errors=True)  # of a killed evaluation
    declared = fetch_rows(params, staged / "registered") if row == OTHERS_ROW else DeclaredRows()
    results = _evaluate(params, row, images, masks, declared)
    sources = describe_sources(results)
    summary = Summary(
        suite_id(images, masks, params.evaluate),
        images.manifest.records,
        summarise(results, params.evaluate),
        late_pairs(results),
        {row: ", ".join(filter(None, (text, sources.get(row)))) for row, text in declared.about.items()},
    )
    folder = staged / "results"
    write_scores(folder / SCORES_NAME, [score for result in results for score in result.scores])
    _write_gallery(folder / GALLERY_NAME, images, results)
    write_summary(folder / SUMMARY_NAME, summary)
    _write_metrics(staged, row, summary)
    inputs.check_unchanged()
    _move(staged, row)
    write_record(inputs)
    costs = {name: cost.to_json() for name, cost in add_costs(result.costs for result in results).items()}
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
        write_json(place, _headline(summary.rows[row][OVERALL]))
        return
    place.mkdir(parents=True, exist_ok=True)
    for name, groups in summary.rows.items():
        write_json(place / f"{name}.json", _headline(groups[OVERALL]))


def _headline(group: Group) -> dict[str, float]:
    means = _means(group)
    return {name: means[name] for name in HEADLINE if name in means}


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


def _evaluate(params: Params, row: str, images: Column, masks: Column, declared: DeclaredRows) -> list[PartResult]:
    """Evaluate all parts of the suite, here or on workers, and return their results in order."""
    job = EvaluationJob(
        name=row,
        images=str(images.folder.resolve()),
        masks=str(masks.folder.resolve()),
        images_digest=images.manifest.digest,
        masks_digest=masks.manifest.digest,
        model=None if row in GROUP_ROWS else str(model_folder(row).resolve()),
        registered=declared.registered,
        external=declared.external,
        config=params.evaluate,
        store=params.store,
    )
    parts = divide_images(images.manifest.records) if row != OTHERS_ROW or declared.names else ()
    results: list[PartResult] = []
    with Bar(f"evaluate {row}", images.manifest.records if parts else 0, "images") as bar:
        for result in map_tasks(partial(evaluate_part, job), parts, num_workers=params.cluster.num_workers):
            results.append(result)
            bar.at(min(len(results) * len(parts[0]), images.manifest.records))
    return sorted(results, key=lambda result: result.first)


def _write_gallery(folder: Path, images: Column, results: Sequence[PartResult]) -> None:
    """Write the pictures of the gallery as a column of one shard. Without rows the folder is empty."""
    records = [
        NewRecord(key=key, members=members, about={}) for result in results for key, members in result.gallery.items()
    ]
    folder.mkdir(parents=True)
    if not records:
        return
    shard, fields = write_shard(folder, GALLERY_NAME, 0, records)
    write_manifest(
        folder,
        Manifest(
            dataset=images.manifest.dataset,
            split=images.manifest.split,
            column=GALLERY_NAME,
            licence=images.manifest.licence,
            shards=(shard,),
            records_sha256=write_records(folder, fields),
            made_from=images.manifest.digest,
        ),
    )


def _means(group: Group) -> dict[str, float]:
    """Return the means of the metrics that have a value."""
    return {name: metric.mean for name, metric in group.metrics.items() if isinstance(metric, Value)}


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
        for metric, mean in _means(group).items()
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
