"""The suites of the report's pages: that of params.yaml, and one more for each name in `suites`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.shards.column import Column
from datasets.shards.expectation import Expectation
from jobs.evaluation.job import BIN_NAMES
from pipeline.columns import open_column
from pipeline.layout import page_file, results_folder, suite_folder
from pipeline.params import Params
from pipeline.suite_files import check_suite, read_suite


@dataclass(frozen=True, kw_only=True)
class PageSuite:
    """The suite of one page. No other page has results of it.

    name: of the file in conf/suite; "" for the suite of params.yaml.
    split: whose images are evaluated.
    mask_kind: how masks are drawn.
    bins: names of the masks of each image.
    has_ratios: whether the bins are ranges of hole ratios.
    smallest_sha256: see `jobs.evaluation.suite.select_records`.
    """

    name: str
    split: str
    mask_kind: str
    bins: tuple[str, ...]
    has_ratios: bool = True
    smallest_sha256: int | None = None

    @property
    def page(self) -> Path:
        """The file of the page."""
        return page_file(self.name)

    def results(self, row: str) -> Path:
        """Return the folder of the results of a generator or of a group of rows."""
        return results_folder(row, self.name)

    def stage_of(self, row: str) -> str:
        """Return the name in dvc.yaml of the stage that writes these results."""
        return f"suites@{self.name}" if self.name else row

    def open_masks(self, params: Params, images: Column) -> Column:
        """Open the masks. Raises ManifestError or ShardError if they are missing, or are those of other images."""
        if not self.name:
            return open_column(params, "mask", self.split, images=images)
        expected = Expectation(split=self.split, column="mask", made_from=images.manifest.digest)
        remedy = f"dvc repro suites@{self.name}"
        return Column(suite_folder(self.name) / "mask" / self.split, remedy=remedy, expected=expected)


def page_suite(params: Params, name: str = "") -> PageSuite:
    """Return the suite of a page.

    name: of a file in conf/suite; "" gives the suite of params.yaml.
    Raises SuiteFileError for a suite that is missing or is of other images than params.yaml.
    """
    if not name:
        return PageSuite(name="", split=params.suite.split, mask_kind=params.suite.masks.kind, bins=BIN_NAMES)
    suite = read_suite(name)
    check_suite(name, suite, params)
    return PageSuite(
        name=name,
        split=suite.split,
        mask_kind=suite.masks.kind,
        bins=tuple(suite.ranges),
        has_ratios=suite.bins,
        smallest_sha256=suite.smallest_sha256,
    )
