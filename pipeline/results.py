"""The results of all rows, as the report reads them, and whether they may share a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from datasets.shards.column import Column
from files.errors import UserError
from jobs.evaluation.results import Group, Summary, read_summary
from jobs.evaluation.row_scores import RowScores, rows_of
from jobs.evaluation.suite import check_one_suite, suite_id
from jobs.report.data import REFERENCE_METRIC
from jobs.runs.receipt import Receipt
from pipeline.layout import BASELINES_ROW, GROUP_ROWS, OTHERS_ROW, SCORES_NAME, SUMMARY_NAME
from pipeline.page_suites import PageSuite
from pipeline.params import Params
from pipeline.trained import open_receipt

HoleL1 = dict[str, dict[tuple[str, str], float]]
"""Row -> (key, bin) -> `l1_hole_percent`."""


class ReportError(UserError):
    """There is no page of what was asked for: results are missing, or must not share a table."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All data of the page.

    suite: which all results are of.
    summaries: generator, "baselines" or "others" -> summary.
    scores: row -> its scores, which stay on disk.
    receipts: generator -> receipt of its weights.
    images, masks: the columns of the suite. The page of an unfinished run may lack masks.
    """

    suite: PageSuite
    summaries: Mapping[str, Summary]
    scores: Mapping[str, RowScores]
    receipts: Mapping[str, Receipt]
    images: Column
    masks: Column | None

    @property
    def generators(self) -> list[str]:
        """The generators that have results, in the order of params.yaml."""
        return list(self.receipts)

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the registered and external rows."""
        return tuple(self.summaries[OTHERS_ROW].rows) if OTHERS_ROW in self.summaries else ()

    @property
    def rows(self) -> dict[str, Mapping[str, Group]]:
        """The groups of every row, in the order of params.yaml."""
        return {row: groups for summary in self.summaries.values() for row, groups in summary.rows.items()}

    @property
    def num_images(self) -> int:
        """The number of images of the suite."""
        return next((summary.images for summary in self.summaries.values()), self.images.manifest.records)

    def hole_l1(self, keys: Sequence[str]) -> HoleL1:
        """Return the hole L1 of a few images: of every row that has some, and of every pair that was filled."""
        names = pa.array(keys, pa.string())
        pairs = [(key, bin_name) for key in keys for bin_name in self.suite.bins]
        found: HoleL1 = {}
        for row, scores in self.scores.items():
            grid = scores.grid(REFERENCE_METRIC, names, self.suite.bins)
            values = zip(pairs, grid.ravel().tolist(), strict=True)
            found[row] = {pair: value for pair, value in values if not math.isnan(value)}
        return found


def check_complete(suite: PageSuite, rows: Sequence[str]) -> None:
    """Raise ReportError unless every row has results."""
    for row in rows:
        folder = suite.results(row)
        if not (folder / SUMMARY_NAME).is_file():
            remedy = (
                f"dvc repro suites@{suite.name}"
                if suite.name
                else "dvc repro; for a page of what there is so far, run: python -m pipeline report --partial"
            )
            raise ReportError(f"{folder} has no results; run: {remedy}")


def read_results(suite: PageSuite, rows: Sequence[str], images: Column, masks: Column | None) -> Results:
    """Read the results of generators and of the groups of rows that are named."""
    folders = {name: suite.results(name) for name in rows}
    return Results(
        suite=suite,
        summaries={name: read_summary(folder / SUMMARY_NAME) for name, folder in folders.items()},
        scores={row: of_row for folder in folders.values() for row, of_row in rows_of(folder / SCORES_NAME).items()},
        receipts={name: open_receipt(name) for name in rows if name not in GROUP_ROWS},
        images=images,
        masks=masks,
    )


def groups_of_rows(params: Params, suite: PageSuite) -> tuple[str, ...]:
    """Return the evaluations of several rows that a page has: one more suite has no rows of `evaluate.rows`."""
    rows = params.evaluate.rows
    has_others = bool(rows.registered or rows.external) and not suite.name
    return GROUP_ROWS if has_others else (BASELINES_ROW,)


def common_suite(params: Params, results: Results) -> str:
    """Return the id of the suite of all results, which is that of the images and masks here."""
    summaries = results.summaries
    check_one_suite(summaries)
    first = next(iter(summaries))
    here = suite_id(results.images, results.masks, params.evaluate, results.suite.smallest_sha256)
    if summaries[first].suite != here:
        raise ReportError(
            f"{first} was evaluated on suite {summaries[first].suite}, but {results.images.folder} and "
            f"{results.masks.folder} are suite {here}; run: dvc repro"
        )
    return here


def check_one_protocol(results: Results) -> None:
    """Raise ReportError unless each folder of results has its row, and all generators saw the same images."""
    for name, summary in results.summaries.items():
        if name not in GROUP_ROWS and name not in summary.rows:
            folder, stage = results.suite.results(name), results.suite.stage_of(f"evaluate@{name}")
            raise ReportError(
                f"{folder} has the rows {', '.join(summary.rows)}, expected {name}; run: dvc repro {stage}"
            )
    (first, receipt), *others = results.receipts.items()
    for other, its in others:
        if its.images != receipt.images:
            raise ReportError(
                f"{first} was trained on images {receipt.images}, {other} on {its.images}: their numbers cannot be "
                "compared; run: dvc repro"
            )
