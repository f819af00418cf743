"""The results of all rows, as the report reads them, and whether they may share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets.shards.column import Column
from files.errors import UserError
from jobs.evaluation.results import Group, Score, Summary, read_scores, read_summary
from jobs.evaluation.suite import check_one_suite, suite_id
from jobs.report.data import REFERENCE_METRIC
from jobs.runs.receipt import Receipt
from pipeline.layout import BASELINES_ROW, GROUP_ROWS, OTHERS_ROW, SCORES_NAME, SUMMARY_NAME, results_folder
from pipeline.params import Params
from pipeline.trained import open_receipt

HoleL1 = dict[str, dict[tuple[str, str], float]]
"""Row -> (key, bin) -> `l1_hole_percent`."""


class ReportError(UserError):
    """Two results must not share a table."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All data of the page.

    summaries: generator, "baselines" or "others" -> summary.
    scores: row -> its scores.
    hole_l1: hole L1 of every pair of every row.
    receipts: generator -> receipt of its weights.
    images, masks: the columns of the suite. The page of an unfinished run may lack masks.
    """

    summaries: Mapping[str, Summary]
    scores: Mapping[str, Sequence[Score]]
    hole_l1: HoleL1
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


def check_complete(rows: Sequence[str]) -> None:
    """Raise ReportError unless every row has results."""
    for row in rows:
        if not (results_folder(row) / SUMMARY_NAME).is_file():
            raise ReportError(
                f"{results_folder(row)} has no results; run: dvc repro; for a page of what there is so far, run: "
                "python -m pipeline report --partial"
            )


def read_results(rows: Sequence[str], images: Column, masks: Column | None) -> Results:
    """Read the results of generators and of the groups of rows that are named."""
    folders = {name: results_folder(name) for name in rows}
    scores: dict[str, list[Score]] = {}
    hole_l1: HoleL1 = {}
    for folder in folders.values():
        for score in read_scores(folder / SCORES_NAME):
            scores.setdefault(score.row, []).append(score)
            hole_l1.setdefault(score.row, {})[score.key, score.bin] = score.values[REFERENCE_METRIC]
    return Results(
        summaries={name: read_summary(folder / SUMMARY_NAME) for name, folder in folders.items()},
        scores=scores,
        hole_l1=hole_l1,
        receipts={name: open_receipt(name) for name in rows if name not in GROUP_ROWS},
        images=images,
        masks=masks,
    )


def groups_of_rows(params: Params) -> tuple[str, ...]:
    """Return the evaluations of several rows that the page has."""
    rows = params.evaluate.rows
    return GROUP_ROWS if rows.registered or rows.external else (BASELINES_ROW,)


def common_suite(params: Params, results: Results) -> str:
    """Return the suite of all results, which is that of the images and masks in shards/."""
    summaries = results.summaries
    check_one_suite(summaries)
    first = next(iter(summaries))
    here = suite_id(results.images, results.masks, params.evaluate)
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
