"""All results -> one page: the table, the curves, the gallery, and what proves them."""

from __future__ import annotations

import csv
import json
import logging
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from datasets.shards.column import Column
from files.checkout import ROOT
from files.durable import file_digest, write_durably
from files.errors import UserError
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.metrics import Value, paired_difference
from jobs.evaluation.suite import untrained
from jobs.generators import card
from jobs.report.page import REFERENCE, REFERENCE_METRIC, Curves, GalleryRow, Page, Row, render
from jobs.runs.receipt import Receipt, read_receipt
from jobs.tracking import mlflow_runs as tracking
from masks.hole_ratio import BINS, member_of_bin
from pipeline.layout import (
    BASELINES_ROW,
    GALLERY_NAME,
    REPORT,
    SCORES_NAME,
    SUMMARY_NAME,
    column_folder,
    curves_folder,
    model_folder,
    results_folder,
)
from pipeline.params import Params

log = logging.getLogger(__name__)

_QUANTILES = (0.1, 0.5, 0.9)
_HIDDEN_COLOUR = 255

Scores = dict[str, dict[tuple[str, str], dict[str, float]]]  # row -> (key, bin) -> metric -> figure


class ReportError(UserError):
    """Results that must not share a table."""


def run(params: Params) -> None:
    """Write report/index.html and log its figures to the tracking database, if that answers.

    Raises ReportError when two results come from different suites.
    """
    sources = [*params.generators, BASELINES_ROW]
    summaries = {name: json.loads((results_folder(name) / SUMMARY_NAME).read_text()) for name in sources}
    suite = _one_suite(summaries)
    scores = {row: pairs for name in sources for row, pairs in _read_scores(name).items()}
    receipts = {name: read_receipt(model_folder(name)) for name in params.generators}
    images, masks = (
        Column(column_folder(column, params.suite.split), store=params.store) for column in ("image", "mask")
    )
    kinds = dict.fromkeys(params.generators, "generator") | {untrained(name): "untrained" for name in params.generators}
    figures = {row: groups for summary in summaries.values() for row, groups in summary["rows"].items()}
    rows = [_row(row, groups, kinds.get(row, "baseline"), scores) for row, groups in figures.items()]
    any_row = next(iter(figures.values()))
    page = Page(
        dataset=images.manifest.dataset,
        height=params.ingest.size,
        width=params.ingest.size,
        num_images=images.manifest.records,
        num_masks=len(BINS),
        suite=suite,
        budget=", ".join(f"{name} {receipt.steps:,}" for name, receipt in receipts.items()) + " steps",
        rows=rows,
        tv_truth=any_row["overall"]["tv_true_percent"]["mean"],
        bins=[(name, any_row[name]["pairs"]) for name, _, _ in BINS],
        curves=[curves for name in params.generators for curves in _curves(name)],
        gallery=_gallery(params, scores, images, masks),
        facts=_facts(params, receipts, images, masks),
        commands=["git checkout <commit of this report>", "make setup", "dvc repro"],
        notes=_notes(images, params),
    )
    write_durably(REPORT, render(page).encode())
    _track(suite, figures)


def _one_suite(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    suites = {name: summary["suite"] for name, summary in summaries.items()}
    first, *others = suites
    for other in others:
        if suites[other] != suites[first]:
            raise ReportError(
                f"{first} was evaluated on suite {suites[first]}, {other} on {suites[other]}: "
                "such numbers never share a table; run: dvc repro"
            )
    return suites[first]


def _read_scores(name: str) -> Scores:
    scores: Scores = {}
    for score in pq.read_table(results_folder(name) / SCORES_NAME).to_pylist():
        place = score.pop("key"), score.pop("bin")
        scores.setdefault(score.pop("row"), {})[place] = score
    return scores


def _row(name: str, groups: Mapping[str, Any], kind: str, scores: Scores) -> Row:
    generator = name.removesuffix("_untrained")
    paper = card(generator) if kind != "baseline" else None
    baseline = BASELINES.get(name)
    pairs = sorted(scores[name])
    ours, reference = ([scores[row][pair][REFERENCE_METRIC] for pair in pairs] for row in (name, REFERENCE))
    return Row(
        name=generator if kind == "untrained" else name,
        kind=kind,
        metrics=_metrics(groups["overall"]),
        by_bin={bin_name: _metrics(groups[bin_name]) for bin_name, _, _ in BINS},
        paper=paper.PAPER if paper else baseline.description,
        year=paper.YEAR if paper else baseline.year,
        against_reference=paired_difference(ours, reference, [key for key, _ in pairs], seed=0),
    )


def _metrics(group: Mapping[str, Any]) -> dict[str, Value | str]:
    hidden = ("pairs", "tv_true_percent")
    return {name: value if isinstance(value, str) else Value(**value) for name, value in group.items()
            if name not in hidden}  # fmt: skip


def _curves(generator: str) -> Iterator[Curves]:
    """Every phase of a generator, in the order of training."""
    phases: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(curves_folder(generator).rglob("*.tsv")):
        with path.open(encoding="utf-8") as file:
            points = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")}
        phases.setdefault(path.parent.name, {})[path.stem] = points
    for phase, terms in sorted(phases.items(), key=lambda item: min(min(points) for points in item[1].values())):
        steps = sorted(set().union(*terms.values()))  # not every update is due at every step
        series = {term: [points.get(step, math.nan) for step in steps] for term, points in terms.items()}
        yield Curves(generator=generator, phase=phase, steps=steps, series=series)


def _gallery(params: Params, scores: Scores, images: Column, masks: Column) -> list[GalleryRow]:
    """Of each bin, the pairs at fixed quantiles of the trained generators' mean error: a rule, not a choice."""
    shown = Column(results_folder(BASELINES_ROW) / GALLERY_NAME).keys.to_pylist()
    galleries = {name: Column(results_folder(name) / GALLERY_NAME) for name in [*params.generators, BASELINES_ROW]}
    rows = []
    for bin_name, _, _ in BINS:
        errors = {
            key: float(np.mean([scores[name][key, bin_name][REFERENCE_METRIC] for name in params.generators]))
            for key in shown
        }
        by_error = sorted(errors, key=lambda key: (errors[key], key))
        for quantile in _QUANTILES:
            key = by_error[round(quantile * (len(by_error) - 1))]
            cells = list(_cells(params, key, bin_name, images, masks, galleries))
            caption = f"{quantile:.0%} of the errors of this bin are smaller: mean hole L1 {errors[key]:.2f} %"
            rows.append(GalleryRow(key=key, bin=bin_name, caption=caption, cells=cells))
    return rows


def _cells(
    params: Params, key: str, bin_name: str, images: Column, masks: Column, galleries: Mapping[str, Column]
) -> Iterator[tuple[str, bytes]]:
    record = images.keys.index(key).as_py()
    image = decode_image(images.read(record))
    hole = decode_map(masks.read(record, member_of_bin("mask", bin_name))) > 0
    yield "input", encode_png(np.where(hole[..., None], np.uint8(_HIDDEN_COLOUR), image))
    for name in params.generators:
        gallery = galleries[name]
        record = gallery.keys.index(key).as_py()
        edges = member_of_bin(f"{name}-edge", bin_name)
        if edges in gallery.fields:
            yield f"edges of {name}", encode_grey_png(255 - decode_map(gallery.read(record, edges)))
        yield name, gallery.read(record, member_of_bin(f"{name}-composite", bin_name))
    for name in params.evaluate.baselines:
        gallery = galleries[BASELINES_ROW]
        record = gallery.keys.index(key).as_py()
        yield name, gallery.read(record, member_of_bin(f"{name}-composite", bin_name))
    yield "truth", encode_png(image)


def _facts(params: Params, receipts: Mapping[str, Receipt], images: Column, masks: Column) -> list[tuple[str, str]]:
    any_receipt = next(iter(receipts.values()))
    return [
        ("Training images, manifest", any_receipt.images),
        ("Evaluation images, manifest", images.manifest.digest),
        ("Evaluation masks, manifest", masks.manifest.digest),
        *((f"Weights of {name}", receipt.weights_sha256) for name, receipt in receipts.items()),
        *(
            (f"Training of {name}", f"{r.steps:,} steps, {r.samples_seen:,} samples, seed {r.seed}, "
             f"{', then '.join(map(str, r.world_sizes))} processes; parameters: "
             + ", ".join(f"{k} {v:,}" for k, v in r.parameters.items()))
            for name, r in receipts.items()
        ),
        ("Packages, lock file", file_digest(ROOT / "requirements.lock")),
        ("Licence of the images", images.manifest.licence),
    ]  # fmt: skip


def _notes(images: Column, params: Params) -> list[str]:
    notes = [
        "A gallery row is the pair at the given quantile of the generators' mean error, among images drawn by hash.",
        "Intervals are 95 % percentile bootstrap over images; each training ran once: its own chance is not in them.",
        "Composites are scored in 8 bits: pixels outside the hole are the image's own.",
    ]
    if images.manifest.dataset == "photos":
        notes.append(
            "The data set photos has nine scenes and narrow networks were trained for minutes: "
            "the table shows that the pipeline works, not how good a paper is."
        )
    return notes


def _track(suite: str, figures: Mapping[str, Any]) -> None:
    """The table's figures and the page, as a run of their own; a server that does not answer holds up nothing."""
    try:
        run_id = tracking.open_run("report", parameters={}, tags={"suite": suite}, datasets=[], files={})
        tracking.log_metrics(run_id, {f"{row}/{metric}": value for row, groups in figures.items()
                                      for metric, value in _means(groups["overall"])})  # fmt: skip
        tracking.log_file(run_id, REPORT, "report")
        tracking.close_run(run_id)
    except Exception as error:  # every client and store has its own kinds
        why = tracking.reason(error)
        log.warning("%s is written, but not tracked (%s); later: python -m pipeline report", REPORT, why)


def _means(group: Mapping[str, Any]) -> Sequence[tuple[str, float]]:
    return [(name, value["mean"]) for name, value in group.items() if isinstance(value, dict)]


VERB = {"help": "stage: all results to one page", "example": "report"}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage."""
    run(params)
    return 0
