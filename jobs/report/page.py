"""The comparison as one HTML page that needs nothing else: plain data in, text out, equal text for equal data.

Names, keys and captions come from data sets and are hostile: the template escapes all of them, charts are drawn here
from numbers, and the page forbids itself scripts and any request.
"""

from __future__ import annotations

import base64
import io
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from files.errors import UserError
from jobs.evaluation.metrics import Value

Metric = Value | str
"""A number, or the reason why there is none, such as "not computed: needs Inception-v3 weights"."""

Kind = Literal["generator", "untrained", "baseline"]

REFERENCE = "mean_colour"
"""The baseline that the summary holds every other row against."""

REFERENCE_METRIC = "l1_hole_percent"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method: a trained generator, the same before its first step, or a classical baseline.

    metrics: by metric name, over all (image, mask) pairs; every metric that some row has becomes a column.
    by_bin: bin name -> the same for the pairs of that bin; `l1_hole_percent` and `psnr` are shown, of trained
        generators and baselines.
    against_reference: paired difference of `l1_hole_percent`, this row minus `mean_colour`; without its interval, or
        without it at all, the means alone decide who is better.
    """

    name: str
    kind: Kind
    metrics: Mapping[str, Metric]
    by_bin: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    paper: str = ""
    year: int | None = None
    against_reference: Value | None = None


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Losses of one phase: steps (n,), and for each term n numbers; NaN where nothing was logged."""

    generator: str
    phase: str
    steps: Sequence[float]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """One (image, mask) pair through every method. cells: (column label, PNG file) in the order of the columns."""

    key: str
    bin: str
    caption: str
    cells: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything the page says.

    height, width: of the evaluated images, in pixels. num_masks: masks per image. suite: id of the frozen evaluation
    suite. budget: how long each generator was trained. tv_truth: `tv_percent` of the true images.
    fid_images: how many pictures FID compares; it belongs into the column's title. bins: (name, number of pairs).
    facts: (label, text) of digests, parameters, licences. commands: shell lines that rebuild the page. notes: what a
    reader has to know to judge the numbers, deviations above all.
    """

    dataset: str
    height: int
    width: int
    num_images: int
    num_masks: int
    suite: str
    budget: str
    rows: Sequence[Row]
    tv_truth: float | None = None
    fid_images: int | None = None
    bins: Sequence[tuple[str, int]] = ()
    curves: Sequence[Curves] = ()
    gallery: Sequence[GalleryRow] = ()
    facts: Sequence[tuple[str, str]] = ()
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()


def render(page: Page) -> str:
    """The page as HTML 5, in UTF-8 once written. Raises ValueError for a picture in the gallery that is no PNG."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    html = environment.get_template("page.html.j2").render(
        page=page,
        summary=_summary(page.rows),
        comparison=_comparison(page),
        bins=_by_bin(page),
        losses=[_loss_chart(curves, number) for number, curves in enumerate(page.curves)],
        gallery=_gallery(page.gallery),
        groups=_GROUPS,
    )
    return _encodable(html)


def _encodable(text: str) -> str:
    """The text without lone surrogates: file names that were no UTF-8 arrive as such, and no file can hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


_GROUPS: dict[Kind, str] = {
    "generator": "Trained generators",
    "untrained": "The same, untrained",
    "baseline": "Baselines without a network",
}


# Summary


_NOUNS: dict[Kind, str] = {
    "generator": "trained generators",
    "untrained": "untrained networks",
    "baseline": "other baselines",
}


def _summary(rows: Sequence[Row]) -> list[str]:
    """Who beats the mean colour in hole L1 and who does not, one paragraph for each kind of rows."""
    reference = next((row for row in rows if row.name == REFERENCE and row.kind == "baseline"), None)
    level = reference and reference.metrics.get(REFERENCE_METRIC)
    if not isinstance(level, Value):
        return ["Filling with the mean colour was not scored, so no row can be held against it."]
    paragraphs = []
    for kind, noun in _NOUNS.items():
        members = [row for row in _sorted(rows) if row.kind == kind and row is not reference]
        verdicts = [(row.name, verdict) for row in members if (verdict := _verdict(row, level))]
        if verdicts:
            paragraphs.append(_compared(verdicts, noun))
    opening = f"Filling with the mean colour of what is visible leaves an error of {level.mean:.2f} % (L1 in the hole)."
    return [" ".join([opening, *paragraphs[:1]]), *paragraphs[1:]]


def _compared(verdicts: Sequence[tuple[str, str]], noun: str) -> str:
    """Such as: 2 of 3 trained generators beat it: a, b. Not better: c."""
    names = {wanted: [name for name, found in verdicts if found == wanted] for wanted in ("better", "unclear", "worse")}
    if len(names["worse"]) == len(verdicts):
        return f"None of {len(verdicts)} {noun} beats it."
    count = f"{len(names['better']) or 'None'} of {len(verdicts)} {noun}"
    sentences = [f"{count} beats it" if len(names["better"]) < 2 else f"{count} beat it"]
    sentences[0] += f": {', '.join(names['better'])}." if names["better"] else "."
    for verdict, words in (("unclear", "No clear difference"), ("worse", "Not better")):
        if names[verdict]:
            sentences.append(f"{words}: {', '.join(names[verdict])}.")
    return " ".join(sentences)


def _verdict(row: Row, level: Value) -> Literal["better", "unclear", "worse"] | None:
    """What is known of row's hole L1 against the reference's; None if it has none."""
    value = row.metrics.get(REFERENCE_METRIC)
    if not isinstance(value, Value) or not math.isfinite(value.mean):
        return None
    difference = row.against_reference or Value(value.mean - level.mean)
    low = difference.mean if difference.low is None else difference.low
    high = difference.mean if difference.high is None else difference.high
    if high < 0:
        return "better"
    return "worse" if low > 0 else "unclear"


# Tables


class _Column(NamedTuple):
    name: str
    title: str
    unit: str = ""
    digits: int = 3
    better: Literal["lower", "higher", "truth"] | None = None


_COLUMNS = (
    _Column("l1_hole_percent", "L1 in hole", "%", 2, "lower"),
    _Column("l1_percent", "L1", "%", 2, "lower"),
    _Column("l2_hole_percent", "L2 in hole", "%", 2, "lower"),
    _Column("l2_percent", "L2", "%", 2, "lower"),
    _Column("psnr_hole", "PSNR in hole", "dB", 2, "higher"),
    _Column("psnr", "PSNR", "dB", 2, "higher"),
    _Column("ssim", "SSIM", "", 3, "higher"),
    _Column("tv_percent", "TV", "%", 2, "truth"),
    _Column("fid", "FID", "", 2, "lower"),
    _Column("lpips_alex", "LPIPS", "AlexNet", 3, "lower"),
    _Column("lpips_vgg", "LPIPS", "VGG-16", 3, "lower"),
    _Column("lpips", "LPIPS", "", 3, "lower"),
)
_HINTS = {"lower": "lower is better", "higher": "higher is better", "truth": "closer to the truth is better", None: ""}


class _Cell(NamedTuple):
    """What one cell shows: a number, its interval or a second number beneath it, or the number of a footnote."""

    text: str
    beneath: str = ""
    is_best: bool = False
    footnote: int | None = None


class _Heading(NamedTuple):
    title: str
    unit: str
    hint: str


class _Table(NamedTuple):
    headings: list[_Heading]
    rows: list[tuple[Row, list[_Cell]]]
    footnotes: list[str]


def _comparison(page: Page) -> _Table:
    """All rows by all metrics; the rows of a kind with the smallest hole L1 first."""
    columns = _columns_of(page.rows)
    best = {
        column: _best([row.metrics.get(column.name) for row in page.rows], column, page.tv_truth) for column in columns
    }
    footnotes: list[str] = []
    rows = [
        (row, [_cell(row.metrics.get(column.name), column, best[column], footnotes) for column in columns])
        for row in _sorted(page.rows)
    ]
    return _Table([_heading(column, page) for column in columns], rows, footnotes)


def _columns_of(rows: Iterable[Row]) -> list[_Column]:
    """Columns for every metric that some row has: those known here in their order, then others as they come."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    known = {column.name for column in _COLUMNS}
    return [c for c in _COLUMNS if c.name in names] + [_Column(name, name) for name in names if name not in known]


def _heading(column: _Column, page: Page) -> _Heading:
    unit = column.unit
    if column.name == "tv_percent" and page.tv_truth is not None:
        unit = f"{unit}, truth {page.tv_truth:.{column.digits}f}"
    if column.name == "fid" and page.fid_images is not None:
        unit = f"N = {page.fid_images:,}"
    return _Heading(column.title, unit, _HINTS[column.better])


def _best(metrics: Iterable[Metric | None], column: _Column, truth: float | None) -> str | None:
    """The best number as it is printed, so that what reads as equal is marked alike; None where nothing can be best."""
    means = [metric.mean for metric in metrics if isinstance(metric, Value) and math.isfinite(metric.mean)]
    distance = {
        "lower": lambda mean: mean,
        "higher": lambda mean: -mean,
        "truth": None if truth is None else (lambda mean: abs(mean - truth)),
        None: None,
    }[column.better]
    return f"{min(means, key=distance):.{column.digits}f}" if means and distance else None


def _cell(metric: Metric | None, column: _Column, best: str | None, footnotes: list[str]) -> _Cell:
    if metric is None:
        return _Cell("–")
    if isinstance(metric, str):
        if metric not in footnotes:
            footnotes.append(metric)
        return _Cell("–", footnote=footnotes.index(metric) + 1)
    text = f"{metric.mean:.{column.digits}f}"
    interval = "" if metric.low is None or metric.high is None else _interval(metric, column.digits)
    return _Cell(text, interval, text == best)


def _interval(value: Value, digits: int) -> str:
    return f"{value.low:.{digits}f} – {value.high:.{digits}f}"


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """By kind, then by hole L1; rows without it last, in their order."""

    def order(row: Row) -> tuple[int, float]:
        value = row.metrics.get(REFERENCE_METRIC)
        mean = value.mean if isinstance(value, Value) else math.inf
        return list(_GROUPS).index(row.kind), mean if math.isfinite(mean) else math.inf

    return sorted(rows, key=order)


class _Bins(NamedTuple):
    table: _Table
    chart: Markup
    legend: list[_Key]


def _by_bin(page: Page) -> _Bins | None:
    """Hole L1 with PSNR beneath it, one column per bin, and hole L1 drawn over the bins; None if there are no bins."""
    measured = [row for row in _sorted(page.rows) if row.by_bin and row.kind != "untrained"]
    if not page.bins or not measured:
        return None
    l1 = next(column for column in _COLUMNS if column.name == REFERENCE_METRIC)
    names = [name for name, _ in page.bins]
    best = {name: _best([row.by_bin.get(name, {}).get(l1.name) for row in measured], l1, None) for name in names}
    footnotes: list[str] = []
    rows = []
    for row in measured:
        metrics = [row.by_bin.get(name, {}) for name in names]
        upper = [_cell(m.get(l1.name), l1, best[name], footnotes) for name, m in zip(names, metrics, strict=True)]
        rows.append((row, [c._replace(beneath=_decibel(m.get("psnr"))) for c, m in zip(upper, metrics, strict=True)]))
    table = _Table([_Heading(name, f"N = {count:,}", "") for name, count in page.bins], rows, footnotes)
    return _Bins(table, *_bin_chart(measured, names))


def _decibel(metric: Metric | None) -> str:
    return f"{metric.mean:.1f} dB" if isinstance(metric, Value) else ""


# Charts


class _Key(NamedTuple):
    """One entry of a legend: what the line means, its CSS colour and its dashes."""

    label: str
    colour: str
    dashes: str


class _Chart(NamedTuple):
    generator: str
    phase: str
    svg: Markup | None
    legend: list[_Key]
    scale: str


# Colours that no chart contains otherwise stand for the CSS variables that the page sets for light and dark.
_NUM_COLOURS = 8
_STAND_INS = {f"#0000c{n}": f"var(--line-{n})" for n in range(_NUM_COLOURS)}
_INK, _SOFT, _RULE = "#0000d0", "#0000d1", "#0000d2"
_STAND_INS |= {_INK: "var(--ink)", _SOFT: "var(--soft)", _RULE: "var(--rule)"}
_DASHES = ("", "5 2", "1.5 2", "6 2 1.5 2")
_MAX_POINTS = 200


def _line_style(number: int) -> tuple[str, str]:
    """Colour and dashes of the line with that number; after eight colours come the same with dashes."""
    return f"#0000c{number % _NUM_COLOURS}", _DASHES[number // _NUM_COLOURS % len(_DASHES)]


def _baseline_style(number: int) -> tuple[str, str]:
    return _SOFT, _DASHES[1 + number % (len(_DASHES) - 1)]


class _Line(NamedTuple):
    label: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    dashes: str


def _bin_chart(rows: Sequence[Row], names: Sequence[str]) -> tuple[Markup, list[_Key]]:
    lines, drawn = [], {"generator": 0, "baseline": 0}
    for row in rows:
        style = {"generator": _line_style, "baseline": _baseline_style}[row.kind](drawn[row.kind])
        drawn[row.kind] += 1
        metrics = (row.by_bin.get(name, {}).get(REFERENCE_METRIC) for name in names)
        y = np.array([metric.mean if isinstance(metric, Value) else np.nan for metric in metrics])
        lines.append(_Line(row.name, np.arange(len(names)), y, *style))
    svg = _draw(lines, salt="bins", size=(4.6, 2.8), ticks=names)
    return svg, [_key(line) for line in lines]


def _loss_chart(curves: Curves, number: int) -> _Chart:
    """The terms of one phase over its steps, logarithmic where all are positive and spread over more than 1 : 30."""
    lines = []
    for index, (term, series) in enumerate(curves.series.items()):
        x, y = _thinned(np.asarray(curves.steps, float), np.asarray(series, float))
        if len(x):
            lines.append(_Line(term, x, y, *_line_style(index)))
    values = np.concatenate([line.y for line in lines]) if lines else np.zeros(0)
    is_log = len(values) > 0 and values.min() > 0 and values.max() > 30 * values.min()
    svg = _draw(lines, salt=f"loss {number}", size=(3.4, 2.1), is_log=is_log) if lines else None
    return _Chart(curves.generator, curves.phase, svg, [_key(line) for line in lines], "log" if is_log else "linear")


def _thinned(steps: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The finite points, or the means of 200 runs of neighbours if there are more."""
    finite = np.isfinite(series)
    x, y = steps[finite], series[finite]
    if len(x) <= _MAX_POINTS:
        return x, y
    return tuple(np.array([part.mean() for part in np.array_split(z, _MAX_POINTS)]) for z in (x, y))


def _key(line: _Line) -> _Key:
    return _Key(line.label, _STAND_INS[line.colour], line.dashes)


def _draw(
    lines: Sequence[_Line],
    *,
    salt: str,
    size: tuple[float, float],
    ticks: Sequence[str] = (),
    is_log: bool = False,
) -> Markup:
    """The lines as an SVG element of size inches; ticks: names of x = 0, 1, ...; salt: keeps ids apart and stable."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever this user's matplotlibrc says
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",  # text stays text
                "svg.hashsalt": salt,
                "text.parse_math": False,  # a dollar in a name is a dollar
                "font.size": 8,
                "axes.edgecolor": _RULE,
                "axes.labelcolor": _SOFT,
                "xtick.color": _RULE,
                "ytick.color": _RULE,
                "xtick.labelcolor": _SOFT,
                "ytick.labelcolor": _SOFT,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.formatter.useoffset": False,
            }
        )
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.grid(axis="y", color=_RULE, linewidth=0.5)
        for line in lines:
            dash = [float(length) for length in line.dashes.split()]
            style = {"linestyle": (0, dash) if dash else "-", "marker": "o" if ticks else None, "markersize": 2.5}
            axes.plot(line.x, line.y, color=line.colour, linewidth=1.3, **style)
        if is_log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if ticks:
            axes.set_ylim(bottom=0)
            axes.set_xticks(range(len(ticks)), [_encodable(tick)[:16] for tick in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Markup(_inline(buffer.getvalue()))


def _inline(svg: str) -> str:
    """A file of matplotlib's as an element of an HTML page: no prolog, no namespaces, no ids but those referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    return re.sub("|".join(_STAND_INS), lambda found: _STAND_INS[found[0]], svg)


# Gallery


class _Picture(NamedTuple):
    uri: str
    width: int
    height: int
    is_enlarged: bool


class _Gallery(NamedTuple):
    labels: list[str]
    rows: list[tuple[GalleryRow, list[_Picture | None]]]


def _gallery(rows: Sequence[GalleryRow]) -> _Gallery:
    """A column for every label, in order of appearance; None where a row lacks it."""
    labels = list(dict.fromkeys(label for row in rows for label, _ in row.cells))
    pictures = [{label: _picture(png, f"{row.key}: {label}") for label, png in row.cells} for row in rows]
    return _Gallery(
        labels, [(row, [found.get(label) for label in labels]) for row, found in zip(rows, pictures, strict=True)]
    )


def _picture(png: bytes, name: str) -> _Picture:
    """Small pictures are enlarged by the whole number that brings them to 128 pixels, large ones shown at 256."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise UserError(f"{name} is no PNG file, it begins with {png[:8]!r}")
    width, height = struct.unpack(">II", png[16:24])
    scale = max(1, math.ceil(128 / width)) if width <= 256 else 256 / width
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return _Picture(uri, round(width * scale), round(height * scale), scale >= 1)
