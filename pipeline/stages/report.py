"""All results -> one page: the tables, the curves, the gallery, and the digests behind them."""

from __future__ import annotations

import csv
import logging
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from datasets.shards.column import Column
from datasets.shards.expectation import Expectation
from files.code_archive import Code, process_code
from files.durable import write_durably
from files.errors import UserError
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.metrics.intervals import paired_difference
from jobs.evaluation.metrics.value import Metric, Value
from jobs.evaluation.results import OVERALL, Group, Summary, read_scores, read_summary
from jobs.evaluation.suite import suite_id, untrained_row
from jobs.generators import card
from jobs.report.data import REFERENCE, REFERENCE_METRIC, Curves, GalleryRow, Kind, Page, Row
from jobs.report.page import render
from jobs.runs.receipt import Receipt
from jobs.tracking import mlflow_runs as tracking
from masks.hole_ratio import BINS, member_of_bin
from pipeline.code import LOCK
from pipeline.columns import open_column
from pipeline.inputs import StageInputs
from pipeline.layout import (
    BASELINES_ROW,
    GALLERY_NAME,
    REPORT,
    SCORES_NAME,
    SUMMARY_NAME,
    curves_folder,
    results_folder,
)
from pipeline.lineage.records import write_record
from pipeline.params import Params
from pipeline.trained import open_receipt

log = logging.getLogger(__name__)

_QUANTILES = (0.1, 0.5, 0.9)
_HIDDEN_COLOUR = 255
_TV_TRUE = "tv_true_percent"  # of the true images, hence equal in every row: the page shows it once

HoleL1 = dict[str, dict[tuple[str, str], float]]
"""Row -> (key, bin) -> `l1_hole_percent`."""


class ReportError(UserError):
    """Two results must not share a table."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All data of the page.

    summaries: generator, or "baselines" -> summary.
    hole_l1: hole L1 of every pair of every row.
    receipts: generator -> receipt of its weights.
    images, masks: the columns of the suite.
    """

    summaries: Mapping[str, Summary]
    hole_l1: HoleL1
    receipts: Mapping[str, Receipt]
    images: Column
    masks: Column

    @property
    def rows(self) -> dict[str, Mapping[str, Group]]:
        """The groups of every row, in the order of params.yaml."""
        return {row: groups for summary in self.summaries.values() for row, groups in summary.rows.items()}


def run(params: Params) -> None:
    """Write report/index.html, and log it to the tracking server if that answers.

    Raises ReportError when two results come from different suites or the suite is not the one in shards/, when results
    lack their row, or when generators were trained on different images.
    """
    inputs = StageInputs.read("report")
    results = _read_results(params)
    suite = _common_suite(results)
    _check_one_protocol(results)
    page = render(_page(params, results, suite, inputs.code[LOCK])).encode()
    inputs.check_unchanged()
    write_durably(REPORT, page)
    write_record(inputs)
    _track(suite, results.rows)
    print(f"the results are one page: {REPORT.resolve()}")


def _read_results(params: Params) -> Results:
    images = open_column(params, "image", params.suite.split)
    masks = open_column(params, "mask", params.suite.split, images=images)
    folders = {name: results_folder(name) for name in (*params.generators, BASELINES_ROW)}
    hole_l1: HoleL1 = {}
    for folder in folders.values():
        for score in read_scores(folder / SCORES_NAME):
            hole_l1.setdefault(score.row, {})[score.key, score.bin] = score.values[REFERENCE_METRIC]
    return Results(
        summaries={name: read_summary(folder / SUMMARY_NAME) for name, folder in folders.items()},
        hole_l1=hole_l1,
        receipts={name: open_receipt(name) for name in params.generators},
        images=images,
        masks=masks,
    )


def _common_suite(results: Results) -> str:
    """Return the suite of all results, which is that of the images and masks in shards/."""
    summaries = results.summaries
    first, *others = summaries
    for other in others:
        if summaries[other].suite != summaries[first].suite:
            raise ReportError(
                f"{first} was evaluated on suite {summaries[first].suite}, {other} on {summaries[other].suite}: "
                "their numbers cannot be compared; run: dvc repro"
            )
    here = suite_id(results.images, results.masks)
    if summaries[first].suite != here:
        raise ReportError(
            f"{first} was evaluated on suite {summaries[first].suite}, but {results.images.folder} and "
            f"{results.masks.folder} are suite {here}; run: dvc repro"
        )
    return here


def _check_one_protocol(results: Results) -> None:
    """Raise ReportError unless each folder of results has its row, and all generators saw the same images."""
    for name, summary in results.summaries.items():
        if name != BASELINES_ROW and name not in summary.rows:
            raise ReportError(
                f"{results_folder(name)} has the rows {', '.join(summary.rows)}, expected {name}; run: dvc repro "
                f"evaluate@{name}"
            )
    (first, receipt), *others = results.receipts.items()
    for other, its in others:
        if its.images != receipt.images:
            raise ReportError(
                f"{first} was trained on images {receipt.images}, {other} on {its.images}: their numbers cannot be "
                "compared; run: dvc repro"
            )


def _page(params: Params, results: Results, suite: str, packages_lock: str) -> Page:
    kinds: dict[str, Kind] = {}
    for name in params.generators:
        kinds |= {name: "generator", untrained_row(name): "untrained"}
    any_row = next(iter(results.rows.values()))
    code = process_code()
    steps = ", ".join(f"{name} {receipt.steps:,}" for name, receipt in results.receipts.items())
    return Page(
        dataset=results.images.manifest.dataset,
        size=_describe_size(results.images),
        num_images=results.images.manifest.records,
        num_masks=len(BINS),
        suite=suite,
        budget=f"{steps} steps",
        rows=[_row(row, groups, kinds.get(row, "baseline"), results.hole_l1) for row, groups in results.rows.items()],
        tv_truth=any_row[OVERALL].metrics[_TV_TRUE].mean,
        bins=[(name, any_row[name].pairs) for name, _, _ in BINS],
        curves=[curves for name in params.generators for curves in _curves(name)],
        gallery=_gallery(params, results),
        facts=_facts(results, packages_lock, code),
        commands=_rebuild_commands(code),
        notes=_notes(results.images.manifest.dataset, code),
    )


def _describe_size(images: Column) -> str:
    """Return the height and width of the images, such as "64 × 77"; of each side the range if it differs."""
    ranges = (pc.min_max(images.table[side]).as_py() for side in ("height", "width"))
    return " × ".join("–".join(map(str, sorted({*each.values()}))) for each in ranges)


def _row(name: str, groups: Mapping[str, Group], kind: Kind, hole_l1: HoleL1) -> Row:
    generator = name.removesuffix("_untrained")
    paper = card(generator) if kind != "baseline" else None
    baseline = BASELINES.get(name)
    pairs = sorted(hole_l1[name])
    values, reference = ([hole_l1[row][pair] for pair in pairs] for row in (name, REFERENCE))
    return Row(
        name=generator if kind == "untrained" else name,
        kind=kind,
        metrics=_shown(groups[OVERALL]),
        by_bin={bin_name: _shown(groups[bin_name]) for bin_name, _, _ in BINS},
        paper=paper.PAPER if paper else baseline.description,
        year=paper.YEAR if paper else baseline.year,
        against_reference=paired_difference(values, reference, [key for key, _ in pairs], seed=0),
    )


def _shown(group: Group) -> dict[str, Metric]:
    return {name: metric for name, metric in group.metrics.items() if name != _TV_TRUE}


def _curves(generator: str) -> Iterator[Curves]:
    """Yield the curves of every phase of a generator, in the order of training."""
    phases: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(curves_folder(generator).rglob("*.tsv")):
        with path.open(encoding="utf-8") as file:
            points = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")}
        phases.setdefault(path.parent.name, {})[path.stem] = points
    for phase, terms in sorted(phases.items(), key=lambda item: min(min(points) for points in item[1].values())):
        steps = sorted(set().union(*terms.values()))  # some updates are not due at every step
        series = {term: [points.get(step, math.nan) for step in steps] for term, points in terms.items()}
        yield Curves(generator=generator, phase=phase, steps=steps, series=series)


def _gallery(params: Params, results: Results) -> list[GalleryRow]:
    """Choose pairs by a rule: of each bin, those at fixed quantiles of the trained generators' mean error."""
    galleries = {name: _open_gallery(name, results.images) for name in (*params.generators, BASELINES_ROW)}
    candidates = galleries[BASELINES_ROW].keys.to_pylist()
    rows = []
    for bin_name, _, _ in BINS:
        errors = {
            key: float(np.mean([results.hole_l1[name][key, bin_name] for name in params.generators]))
            for key in candidates
        }
        by_error = sorted(errors, key=lambda key: (errors[key], key))
        for quantile in _QUANTILES:
            key = by_error[round(quantile * (len(by_error) - 1))]
            cells = list(_cells(params, key, bin_name, results, galleries))
            caption = f"{quantile:.0%} of the errors of this bin are smaller: mean hole L1 {errors[key]:.2f} %"
            rows.append(GalleryRow(key=key, bin=bin_name, caption=caption, cells=cells))
    return rows


def _open_gallery(row: str, images: Column) -> Column:
    expected = Expectation(split=images.manifest.split, column=GALLERY_NAME, made_from=images.manifest.digest)
    remedy = f"dvc repro {row if row == BASELINES_ROW else f'evaluate@{row}'}"
    return Column(results_folder(row) / GALLERY_NAME, remedy=remedy, expected=expected)


def _cells(
    params: Params, key: str, bin_name: str, results: Results, galleries: Mapping[str, Column]
) -> Iterator[tuple[str, bytes]]:
    """Yield the label and the PNG file of each cell of a gallery row."""
    image = decode_image(_member(results.images, key))
    hole = decode_map(_member(results.masks, key, member_of_bin("mask", bin_name))) > 0
    yield "input", encode_png(np.where(hole[..., None], np.uint8(_HIDDEN_COLOUR), image))
    for name in params.generators:
        edges = member_of_bin(f"{name}-edge", bin_name)
        if edges in galleries[name].fields:
            yield f"edges of {name}", encode_grey_png(255 - decode_map(_member(galleries[name], key, edges)))
        yield name, _member(galleries[name], key, member_of_bin(f"{name}-composite", bin_name))
    for name in params.evaluate.baselines:
        yield name, _member(galleries[BASELINES_ROW], key, member_of_bin(f"{name}-composite", bin_name))
    yield "truth", encode_png(image)


def _member(column: Column, key: str, field: str | None = None) -> bytes:
    return column.read(column.keys.index(key).as_py(), field)


def _facts(results: Results, packages_lock: str, code: Code) -> list[tuple[str, str]]:
    receipts = results.receipts
    return [
        ("Commit", code.commit),
        ("Differs from the commit", code.describe_changes()),
        ("Training images, manifest", ", ".join(dict.fromkeys(receipt.images for receipt in receipts.values()))),
        ("Evaluation images, manifest", results.images.manifest.digest),
        ("Evaluation masks, manifest", results.masks.manifest.digest),
        *((f"Weights of {name}", receipt.weights_sha256) for name, receipt in receipts.items()),
        *((f"Training of {name}", _training(receipt)) for name, receipt in receipts.items()),
        ("Packages, lock file", packages_lock),
        ("Licence of the images", results.images.manifest.licence),
    ]


def _training(receipt: Receipt) -> str:
    processes = ", then ".join(map(str, receipt.world_sizes))
    parameters = ", ".join(f"{network} {count:,}" for network, count in receipt.parameters.items())
    return (
        f"{receipt.steps:,} steps, {receipt.samples_seen:,} samples, seed {receipt.seed}, {processes} processes; "
        f"parameters: {parameters}"
    )


def _rebuild_commands(code: Code) -> list[str]:
    """Return the commands that make this page again; none if no commit has all that it was made from."""
    return [] if code.is_dirty else [f"git checkout {code.commit}", "make setup", "dvc repro"]


def _notes(dataset: str, code: Code) -> list[str]:
    notes = [
        "A gallery row is the pair at the given quantile of the generators' mean error, among images drawn by hash.",
        "Intervals are 95 % percentile bootstrap over images. Each training ran once: its chance is not included.",
        "Composites are scored in 8 bits: pixels outside the hole are the image's own.",
    ]
    if dataset == "photos":
        notes.append(
            "The data set photos has nine scenes: the table shows that the pipeline works, not how good a paper is."
        )
    if code.is_dirty:
        notes.append(
            f"No commit rebuilds this page: it was made from files that differ from commit {code.commit} "
            f"({code.describe_changes()}). The tag rebuild of each registered model restores its parameters and code."
        )
    return notes


def _track(suite: str, rows: Mapping[str, Mapping[str, Group]]) -> None:
    """Log the page and the means of all rows as one run.

    The runs of the trainings have the metrics of their own generators. This run adds the page and the baselines, which
    no training has, and keeps all compared numbers in one place. If the server fails, a warning is logged.
    """
    metrics = {
        f"{row}/{name}": metric.mean
        for row, groups in rows.items()
        for name, metric in groups[OVERALL].metrics.items()
        if isinstance(metric, Value)
    }
    try:
        run_id = tracking.open_run("report", parameters={}, tags={"suite": suite}, datasets=[], files={})
        tracking.log_metrics(run_id, metrics)
        tracking.log_file(run_id, REPORT, "report")
        tracking.close_run(run_id)
    except Exception as error:  # every client and store raises its own kinds
        why = tracking.reason(error)
        log.warning("%s is written, but not tracked (%s); later: python -m pipeline report", REPORT, why)


VERB = {"help": "stage: all results to one page", "example": "report"}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage."""
    run(params)
    return 0
