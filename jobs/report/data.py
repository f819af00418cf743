"""The data of the report's page. Everything on the page comes from here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Metric, Value
from jobs.evaluation.settings import guided_row, untrained_row
from jobs.report.settings import Track

Kind = Literal["generator", "registered", "external", "untrained", "baseline", "guided"]

REFERENCE = "mean_colour"
"""The baseline that the summary compares every other row with."""

REFERENCE_METRIC = "l1_hole_percent"

GROUPS: dict[Kind, str] = {
    "generator": "Trained generators",
    "registered": "Registered versions",
    "external": "Results of other programs",
    "untrained": "The same, untrained",
    "baseline": "Baselines without a network",
    "guided": "Guided by the true edges inside the hole",
}
"""The title of each kind of rows, in the order of the page."""


WORDS: dict[Kind, str] = {
    "generator": "trained",
    "registered": "registered",
    "external": "other program",
    "untrained": "untrained",
    "baseline": "baseline",
    "guided": "guided, true edges",
}
"""The kind of one row in a table that is not grouped."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training cost, as far as it is the same in every run.

    images_seen: records read, with repetition.
    parameters: number of parameters of the networks that fill holes.
    trained_parameters: the same with discriminators.
    """

    images_seen: int
    parameters: int
    trained_parameters: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method: a trained generator, the same before its first step, a registered version, or another program.

    metrics: name -> value over all pairs of image and mask. Every metric that some row has becomes a column.
    by_bin: bin -> metrics over the pairs of that bin. The page shows `l1_hole_percent` and `psnr` of all rows but the
        untrained ones.
    paper, year: the publication, or a description.
    against_reference: paired difference of `l1_hole_percent`, this row minus `mean_colour`. Without its interval, or
        without the difference, the summary compares the means.
    cost: of a trained generator.
    """

    name: str
    kind: Kind
    metrics: Mapping[str, Metric]
    by_bin: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    paper: str = ""
    year: int | None = None
    against_reference: Value | None = None
    cost: Cost | None = None

    @property
    def id(self) -> str:
        """The name of the row in results and comparisons, which differs from that of every other row."""
        if self.kind == "guided":
            return guided_row(self.name)
        return untrained_row(self.name) if self.kind == "untrained" else self.name


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Losses of one phase.

    steps: (n,).
    series: term -> n losses, NaN where nothing was logged.
    """

    generator: str
    phase: str
    steps: Sequence[float]
    series: Mapping[str, Sequence[float]]


class GalleryCell(NamedTuple):
    """One picture of the gallery.

    label: of its column.
    png: PNG file.
    errors: of a result, the PNG file of its error heat map, see jobs/report/heat.py; b"" of any other picture.
    hole_l1: of a result, its L1 in the hole, in %.
    """

    label: str
    png: bytes
    errors: bytes = b""
    hole_l1: float | None = None


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """One pair of image and mask, filled by every method.

    cells: in the order of the columns.
    disagreement: largest minus smallest hole L1 of the results of networks, in percentage points.
    """

    key: str
    bin: str
    caption: str
    cells: Sequence[GalleryCell]
    disagreement: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What the page of an unfinished run lacks.

    made: date and time of the page.
    missing: (row, why it is not on the page), such as ("csa", "training, step 640 of 1,400").
    """

    made: str
    missing: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How the numbers of the page were measured: what decides which published numbers they can be compared with.

    dataset: name of the data set.
    size: of the images, such as "256 × 256".
    mask_kind: `suite.masks.kind`.
    images: number of images.
    track: `report.track`.
    """

    dataset: str
    size: str
    mask_kind: str
    images: int
    track: Track | None


VerdictWord = Literal["reproduced", "not reproduced", "not comparable"]


class Verdict(NamedTuple):
    """The judgement of one number, with its reason in words."""

    word: VerdictWord
    reason: str


class PublishedLine(NamedTuple):
    """One line of the page: a published number beside ours, or all numbers of a source that none of ours compares with.

    row, source, protocol, certainty: as texts.
    what: metric and bin, or the metrics.
    published, ours, tolerance: numbers as texts; "" where there is none.
    """

    row: str
    source: str
    protocol: str
    certainty: str
    what: str
    published: str
    ours: str
    tolerance: str
    verdict: Verdict


class OtherPage(NamedTuple):
    """The page of another suite. address: relative to this page."""

    suite: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The content of the page.

    size: height and width of the evaluated images in pixels, such as "64 × 77", or "64 × 64–96" if they differ.
    num_masks: masks per image.
    suite: id of the frozen evaluation suite; "" if it has no masks yet.
    suite_name: of one more suite; "" for the suite of params.yaml.
    other_pages: the pages of the other suites, which share no table with this one.
    budget: how long each generator was trained; "" if none has been.
    tv_truth: `tv_percent` of the true images.
    fid_images: number of pairs behind FID, KID, P-IDS and U-IDS; shown in the titles of their columns.
    bins: (name, number of pairs).
    comparisons: of any two rows.
    track: a sentence on what the trainings had in common.
    published: numbers that others printed, beside ours.
    facts: (label, text) of digests, parameters and licences.
    commands: shell lines that rebuild the page.
    notes: facts that a reader needs to judge the numbers, such as deviations from the papers.
    unfinished: what is missing; None for the page of a finished run.
    """

    dataset: str
    size: str
    num_images: int
    num_masks: int
    suite: str
    budget: str
    rows: Sequence[Row]
    suite_name: str = ""
    other_pages: Sequence[OtherPage] = ()
    tv_truth: float | None = None
    fid_images: int | None = None
    bins: Sequence[tuple[str, int]] = ()
    comparisons: Sequence[Comparison] = ()
    track: str = ""
    published: Sequence[PublishedLine] = ()
    curves: Sequence[Curves] = ()
    gallery: Sequence[GalleryRow] = ()
    facts: Sequence[tuple[str, str]] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    unfinished: Unfinished | None = None


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """Sort by kind, then by hole L1. Rows without a finite hole L1 come last, in their order."""

    def order(row: Row) -> tuple[int, float]:
        value = row.metrics.get(REFERENCE_METRIC)
        mean = value.mean if isinstance(value, Value) else math.inf
        return list(GROUPS).index(row.kind), mean if math.isfinite(mean) else math.inf

    return sorted(rows, key=order)


def rows_by_bin(page: Page) -> list[Row]:
    """Return the rows that the page shows by bin, sorted; none for a page without bins."""
    return [row for row in sort_rows(page.rows) if page.bins and row.by_bin and row.kind not in ("untrained", "guided")]


def part_by_guidance(page: Page) -> tuple[Page, Page]:
    """Return the page with the unguided rows, and with the guided ones: these see more, so they share no table."""
    guided = [row for row in page.rows if row.kind == "guided"]
    unguided = [row for row in page.rows if row.kind != "guided"]
    return replace(page, rows=unguided), replace(page, rows=guided)
