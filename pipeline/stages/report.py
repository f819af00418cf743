"""All results of a suite -> one page: the tables, the curves, the gallery, and the digests behind them."""

from __future__ import annotations

import csv
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from datasets.shards.column import Column
from files.code_archive import Code, process_code
from files.durable import file_digest, write_durably
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.comparison import Comparison, compare_rows, write_comparisons
from jobs.evaluation.metrics.intervals import paired_difference
from jobs.evaluation.metrics.value import Metric, Value
from jobs.evaluation.results import OVERALL, Group
from jobs.evaluation.row_scores import all_keys
from jobs.evaluation.settings import FEATURE_WEIGHTS, guided_row, untrained_row
from jobs.evaluation.suite import suite_id
from jobs.generators import card
from jobs.report.curves import Phases, make_curves
from jobs.report.data import (
    REFERENCE,
    REFERENCE_METRIC,
    Conditions,
    Curves,
    Kind,
    OtherPage,
    Page,
    Row,
    Unfinished,
)
from jobs.report.formats import Format, format_results
from jobs.report.notes import describe_results
from jobs.report.page import render
from jobs.report.plots import plot_tables
from jobs.report.published import published_lines, read_published
from jobs.runs.receipt import Receipt
from pipeline.browser import open_page
from pipeline.code import LOCK, stage_code
from pipeline.columns import open_column
from pipeline.costs import training_cost, write_quality_and_cost
from pipeline.gallery import choose_pictures
from pipeline.inputs import StageInputs
from pipeline.layout import (
    COMPARISONS_NAME,
    OTHERS_ROW,
    PARTIAL_REPORT,
    PLOTS_NAME,
    SCORES_NAME,
    curves_folder,
    page_file,
)
from pipeline.lineage.records import write_record
from pipeline.page_suites import PageSuite, page_suite
from pipeline.params import Params
from pipeline.partial import describe_time, find_live_trainings, find_missing, live_curves, open_masks
from pipeline.results import (
    ReportError,
    Results,
    check_complete,
    check_one_protocol,
    common_suite,
    groups_of_rows,
    read_results,
)
from pipeline.tracked_report import track_report
from pipeline.tracks import check_trainings, describe_track
from pipeline.verbosity import say

_TV_TRUE = "tv_true_percent"  # of the true images, hence equal in every row: the page shows it once


def run(params: Params, suite: str = "") -> None:
    """Write the page of a suite, the tables of its charts, and the comparisons of its rows.

    The page of the suite of params.yaml is report/index.html, that of one more suite reports/<suite>/index.html. They
    are attached to the tracked runs of the trainings.

    suite: a name in `suites`; "" for the suite of params.yaml.
    Raises ReportError when two results come from different suites or the suite is not the one of the masks here, when
    results lack their row, or when generators were trained on different images.
    """
    inputs = StageInputs.read("reports", suite) if suite else StageInputs.read("report")
    page, results = _read_page(params, suite, inputs.code[LOCK])
    page = replace(page, gallery=choose_pictures(params, results))
    html = render(page).encode()
    inputs.check_unchanged()
    place = results.suite.page
    write_comparisons(place.with_name(COMPARISONS_NAME), page.comparisons)
    shutil.rmtree(place.with_name(PLOTS_NAME), ignore_errors=True)
    for name, table in plot_tables(page).items():
        write_durably(place.with_name(PLOTS_NAME) / name, table.encode())
    write_durably(place, html)
    if not suite:
        PARTIAL_REPORT.unlink(missing_ok=True)
    write_record(inputs)
    if not suite:
        write_quality_and_cost(page.rows, results.receipts)
    track_report(page, results)
    say(f"the results are one page: {place.resolve()}")


def print_results(params: Params, form: Format, suite: str = "") -> None:
    """Print the results as text on standard output. Nothing is written. Raises as `run` does."""
    page, _ = _read_page(params, suite, stage_code("report")[LOCK])
    print(format_results(page, form), end="")


def _read_page(params: Params, name: str, packages_lock: str) -> tuple[Page, Results]:
    """Read finished results. Returns the content of the page, without pictures, and the results. Raises as `run`."""
    suite = page_suite(params, name)
    images = open_column(params, "image", suite.split)
    masks = suite.open_masks(params, images)
    rows = (*params.generators, *groups_of_rows(params, suite))
    check_complete(suite, rows)
    results = read_results(suite, rows, images, masks)
    suite_digest = common_suite(params, results)
    check_one_protocol(results)
    check_trainings(params.report.track, results.receipts)
    comparisons = _compare(params, results)
    return _page(params, results, suite_digest, packages_lock, comparisons), results


def run_partial(params: Params) -> None:
    """Write report/partial.html with the results that there are, the rows that are missing, and losses of live runs.

    It is no output of the stage, and nothing is tracked.
    Raises ManifestError or ShardError if there are no images, or other ones than params.yaml describes.
    """
    own = page_suite(params)
    images = open_column(params, "image", own.split)
    masks = open_masks(params, images)
    suite = suite_id(images, masks, params.evaluate) if masks else ""
    trainings = find_live_trainings(params)
    groups = groups_of_rows(params, own)
    missing = find_missing(params, groups, suite, trainings)
    rows = [row for row in (*params.generators, *groups) if row not in missing]
    results = read_results(own, rows, images, masks)
    unfinished = Unfinished(made=describe_time(), missing=list(missing.items()))
    comparisons = _compare(params, results)
    page = _page(params, results, suite, stage_code("report")[LOCK], comparisons)
    curves = [
        each
        for name in params.generators
        for each in (live_curves(trainings[name]) if name in trainings else _curves(name))
    ]
    changes = {"gallery": choose_pictures(params, results), "curves": curves, "commands": (), "unfinished": unfinished}
    write_durably(PARTIAL_REPORT, render(replace(page, **changes)).encode())
    say(f"what there is so far is one page: {PARTIAL_REPORT.resolve()}")


def _page(params: Params, results: Results, suite: str, packages_lock: str, comparisons: Sequence[Comparison]) -> Page:
    kinds: dict[str, Kind] = dict.fromkeys(results.others, "registered")
    kinds |= {row.name: "external" for row in params.evaluate.rows.external}
    for name in params.generators:
        kinds |= {name: "generator", untrained_row(name): "untrained", guided_row(name): "guided"}
    any_row, has_ratios = next(iter(results.rows.values()), None), results.suite.has_ratios
    code = process_code()
    steps = ", ".join(f"{name} {receipt.steps:,}" for name, receipt in results.receipts.items())
    rows = [_row(row, groups, kinds.get(row, "baseline"), results) for row, groups in results.rows.items()]
    conditions = Conditions(
        dataset=results.images.manifest.dataset,
        size=_describe_size(results.images),
        mask_kind=results.suite.mask_kind,
        images=results.num_images,
        track=params.report.track,
    )
    return Page(
        dataset=conditions.dataset,
        size=conditions.size,
        num_images=conditions.images,
        num_masks=len(results.suite.bins),
        suite=suite,
        suite_name=results.suite.name,
        other_pages=_other_pages(params, results.suite),
        budget=f"{steps} steps" if steps else "",
        rows=rows,
        comparisons=comparisons,
        track=describe_track(params.report.track, results.receipts),
        published=published_lines(rows, conditions, read_published()),
        fid_images=any_row[OVERALL].pairs if any_row else 0,
        tv_truth=any_row[OVERALL].metrics[_TV_TRUE].mean if any_row else None,
        bins=[(name, any_row[name].pairs) for name in results.suite.bins] if any_row and has_ratios else (),
        curves=[curves for name in params.generators for curves in _curves(name)],
        facts=_facts(params, results, packages_lock, code),
        commands=_rebuild_commands(code),
        notes=[*describe_results(results.summaries.values()), *_notes(results.images.manifest.dataset, code)],
    )


def _other_pages(params: Params, suite: PageSuite) -> list[OtherPage]:
    """Return the pages of the other suites of params.yaml, with links that are relative to this page."""
    start = suite.page.parent
    return [
        OtherPage(name or "main suite", Path(os.path.relpath(page_file(name), start)).as_posix())
        for name in ("", *params.suites)
        if name != suite.name
    ]


def _compare(params: Params, results: Results) -> list[Comparison]:
    """Compare any two rows that see the same: guided ones see the true edges, all others do not."""
    guided = {guided_row(name) for name in params.generators}
    return [
        comparison
        for is_guided in (False, True)
        for comparison in compare_rows(
            {row: scores for row, scores in results.scores.items() if (row in guided) == is_guided},
            bins=results.suite.bins,
            samples=params.evaluate.bootstrap_samples,
        )
    ]


def _describe_size(images: Column) -> str:
    """Return the height and width of the images, such as "64 × 77"; of each side the range if it differs."""
    ranges = (pc.min_max(images.table[side]).as_py() for side in ("height", "width"))
    return " × ".join("–".join(map(str, sorted({*each.values()}))) for each in ranges)


def _row(name: str, groups: Mapping[str, Group], kind: Kind, results: Results) -> Row:
    paper, year = _origin(name, kind, results)
    return Row(
        name=_generator_of(name, kind),
        kind=kind,
        metrics=_shown(groups[OVERALL]),
        by_bin={bin_name: _shown(groups[bin_name]) for bin_name in results.suite.bins if bin_name in groups},
        paper=paper,
        year=year,
        against_reference=_against_reference(name, results),
        cost=training_cost(results.receipts[name]) if kind == "generator" else None,
    )


def _against_reference(row: str, results: Results) -> Value | None:
    """Return the difference of the hole L1 of a row and that of the mean colour; None if that is not scored."""
    if REFERENCE not in results.scores:
        return None
    keys, bins = all_keys([results.scores[row]]), results.suite.bins
    values, reference = (results.scores[name].grid(REFERENCE_METRIC, keys, bins) for name in (row, REFERENCE))
    has_value = ~np.isnan(values)
    images = np.nonzero(has_value)[0].tolist()
    return paired_difference(values[has_value], reference[has_value], images, seed=0)


def _origin(name: str, kind: Kind, results: Results) -> tuple[str, int | None]:
    """Return where a row comes from, and the year of its publication."""
    if kind == "baseline":
        return BASELINES[name].description, BASELINES[name].year
    if kind in ("registered", "external"):
        return results.summaries[OTHERS_ROW].about[name], None
    paper = card(_generator_of(name, kind))
    return paper.PAPER, paper.YEAR


def _generator_of(row: str, kind: Kind) -> str:
    """Return the generator of a row that has another name than it; of all other rows, the name."""
    return row.removesuffix({"untrained": "_untrained", "guided": "_guided"}.get(kind, ""))


def _shown(group: Group) -> dict[str, Metric]:
    return {name: metric for name, metric in group.metrics.items() if name != _TV_TRUE}


def _curves(generator: str) -> Iterator[Curves]:
    """Yield the curves of every phase of a generator, in the order of training."""
    phases: Phases = {}
    for path in sorted(curves_folder(generator).rglob("*.tsv")):
        with path.open(encoding="utf-8") as file:
            points = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")}
        phases.setdefault(path.parent.name, {})[path.stem] = points
    yield from make_curves(generator, phases)


def _facts(params: Params, results: Results, packages_lock: str, code: Code) -> list[tuple[str, str]]:
    receipts = results.receipts
    weights = {name: getattr(params.evaluate, name) for name in FEATURE_WEIGHTS}
    return [
        ("Commit", code.commit),
        ("Differs from the commit", code.describe_changes()),
        ("Training images, manifest", ", ".join(dict.fromkeys(receipt.images for receipt in receipts.values()))),
        ("Evaluation images, manifest", results.images.manifest.digest),
        *([("Evaluation masks, manifest", results.masks.manifest.digest)] if results.masks else []),
        *((f"Feature weights, {name}", file.sha256) for name, file in weights.items() if file is not None),
        *((f"Scores of {name}", file_digest(results.suite.results(name) / SCORES_NAME)) for name in results.summaries),
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
        "Pictures: of each bin, three pairs by the generators' mean error, of images drawn by a hash of the key.",
        "Intervals are 95 % percentile bootstrap over images. Each training ran once: other seeds are not in them.",
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


VERB = {
    "help": "stage: all results of a suite to one page",
    "example": "report --partial --open",
    "arguments": {
        "suite": {
            "nargs": "?",
            "default": "",
            "help": "one more suite, of those that params.yaml lists (default: the suite of params.yaml)",
        },
        "--partial": {"action": "store_true", "help": "write what there is of an unfinished run, to another page"},
        "--format": {
            "choices": ["markdown", "csv", "latex", "json"],
            "help": "print finished results as text, in place of writing the page",
        },
        "--open": {"action": "store_true", "help": "open the page in the browser"},
        "--against": {
            "metavar": "REVISION",
            "help": "compare with the results of a git revision or of a registered version, and write no page",
        },
        "--max-regression": {
            "type": "float",
            "metavar": "PERCENT",
            "help": "with --against: exit with 1 if the hole L1 of a generator rose by more",
        },
    },
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage, write the page of an unfinished run, or print results. Open the page if that is asked for."""
    suite = arguments.suite
    if suite and (arguments.partial or arguments.against):
        raise ReportError(f"--partial and --against are for the suite of params.yaml; leave {suite} out")
    if arguments.max_regression is not None and not arguments.against:
        raise ReportError("--max-regression judges a comparison; name what to compare with: --against REVISION")
    if arguments.against:
        from pipeline.against import compare_with  # here, since the page does without it

        return compare_with(params, arguments.against, arguments.max_regression)
    if arguments.format:
        print_results(params, arguments.format, suite)
        return 0
    if arguments.partial:
        run_partial(params)
    else:
        run(params, suite)
    if arguments.open:
        open_page(PARTIAL_REPORT if arguments.partial else page_suite(params, suite).page)
    return 0
