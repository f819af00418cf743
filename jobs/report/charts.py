"""The charts of the page as SVG elements in the page's own colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.metrics.value import Metric, Value
from jobs.report.data import REFERENCE_METRIC, Curves, Row
from jobs.report.text import encodable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SOFT, _RULE = "var(--soft)", "var(--rule)"
_COLOURS = tuple(f"var(--line-{number})" for number in range(8))
_DASHES = ("", "5 2", "1.5 2", "6 2 1.5 2")
_MAX_POINTS = 200
CHARTED = ("psnr_hole", "ssim", "lpips_alex", "lpips_vgg", "fid")  # over the bins, beside hole L1

# Colours are CSS variables, which the page sets for light and dark, but matplotlib takes no CSS variable as a colour.
# So each variable is drawn as a hex colour that no chart contains otherwise, and replaced in the finished SVG.
_HEX = {**{colour: f"#0000c{number}" for number, colour in enumerate(_COLOURS)}, _SOFT: "#0000d1", _RULE: "#0000d2"}
_VARIABLES = {colour: variable for variable, colour in _HEX.items()}

_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 8,
    "axes.edgecolor": _HEX[_RULE],
    "axes.labelcolor": _HEX[_SOFT],
    "xtick.color": _HEX[_RULE],
    "ytick.color": _HEX[_RULE],
    "xtick.labelcolor": _HEX[_SOFT],
    "ytick.labelcolor": _HEX[_SOFT],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
}


class Key(NamedTuple):
    """One entry of a legend: the label of a line, its CSS colour and its SVG dashes."""

    label: str
    colour: str
    dashes: str


class BinChart(NamedTuple):
    """One metric over the bins, one line per row."""

    title: str
    unit: str
    svg: Markup
    legend: list[Key]


class CostChart(NamedTuple):
    """Hole L1 over a cost, one point per generator. title: names the cost."""

    title: str
    svg: Markup
    legend: list[Key]


class LossChart(NamedTuple):
    """The loss terms of one phase. svg: None if no finite loss was logged. scale: "log" or "linear"."""

    generator: str
    phase: str
    svg: Markup | None
    legend: list[Key]
    scale: str


class _Line(NamedTuple):
    """One line of a chart: its legend entry, its points, x and y (n,), and their intervals, (n,), NaN where unknown."""

    key: Key
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def bin_charts(rows: Sequence[Row], names: Sequence[str]) -> list[BinChart]:
    """Draw metrics over the bins, hole L1 first: baselines in grey and dashed, all other rows in colours.

    rows: all but the untrained ones.
    names: of the bins.
    """
    having = [
        metric
        for metric in CHARTED
        if any(isinstance(row.by_bin.get(name, {}).get(metric), Value) for row in rows for name in names)
    ]
    return [_bin_chart(metric, rows, names) for metric in dict.fromkeys((REFERENCE_METRIC, *having))]


def _bin_chart(metric: str, rows: Sequence[Row], names: Sequence[str]) -> BinChart:
    lines: list[_Line] = []
    drawn = {True: 0, False: 0}
    for row in rows:
        is_baseline = row.kind == "baseline"
        key = (_baseline_key if is_baseline else _line_key)(row.name, drawn[is_baseline])
        drawn[is_baseline] += 1
        lines.append(_bin_line(key, [row.by_bin.get(name, {}).get(metric) for name in names], len(lines) / len(rows)))
    is_main = metric == REFERENCE_METRIC
    svg = _draw(lines, salt=f"bins {metric}", size=(4.6, 2.8) if is_main else (3.4, 2.1), ticks=names)
    return BinChart(BY_NAME[metric].title, BY_NAME[metric].unit, svg, [line.key for line in lines])


def _bin_line(key: Key, metrics: Sequence[Metric | None], share: float) -> _Line:
    """Return the line of one row. share: in [0, 1), moves it sideways, so that intervals do not cover each other."""
    values = [metric if isinstance(metric, Value) else Value(np.nan) for metric in metrics]
    y, low, high = (
        np.array([np.nan if (number := getattr(value, part)) is None else number for value in values], float)
        for part in ("mean", "low", "high")
    )
    return _Line(key, np.arange(len(values)) + 0.3 * (share - 0.5), y, low, high)


def cost_charts(rows: Sequence[Row]) -> list[CostChart]:
    """Draw hole L1 with its interval over each cost that is the same in every run, a point per generator.

    rows: sorted, so that a generator has the colour that it has over the bins.
    """
    points = [row for row in rows if row.cost is not None and isinstance(row.metrics.get(REFERENCE_METRIC), Value)]
    keys = [_line_key(row.name, number)._replace(dashes="") for number, row in enumerate(points)]
    return [
        CostChart(title, _draw_costs(points, keys, [getattr(row.cost, name) for row in points], salt=name), keys)
        for name, title in (("images_seen", "images seen"), ("parameters", "parameters to fill holes"))
    ]


def loss_chart(curves: Curves, number: int) -> LossChart:
    """Draw the terms of one phase over its steps.

    The scale is logarithmic if all losses are positive and the largest is more than 30 times the smallest.

    number: of the chart on its page.
    """
    lines = []
    for index, (term, series) in enumerate(curves.series.items()):
        x, y = _thin_out(np.asarray(curves.steps, float), np.asarray(series, float))
        if len(x):
            lines.append(_Line(_line_key(term, index), x, y))
    values = np.concatenate([line.y for line in lines]) if lines else np.zeros(0)
    is_log = len(values) > 0 and values.min() > 0 and values.max() > 30 * values.min()
    svg = _draw(lines, salt=f"loss {number}", size=(3.4, 2.1), is_log=is_log) if lines else None
    legend = [line.key for line in lines]
    return LossChart(curves.generator, curves.phase, svg, legend, "log" if is_log else "linear")


def _line_key(label: str, number: int) -> Key:
    """Return the style of the line with that number: eight colours, then the same colours with dashes."""
    return Key(label, _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)])


def _baseline_key(label: str, number: int) -> Key:
    return Key(label, _SOFT, _DASHES[1 + number % (len(_DASHES) - 1)])


def _thin_out(steps: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite points, or the means of 200 runs of neighbours if there are more."""
    finite = np.isfinite(series)
    x, y = steps[finite], series[finite]
    if len(x) <= _MAX_POINTS:
        return x, y
    return tuple(np.array([run.mean() for run in np.array_split(z, _MAX_POINTS)]) for z in (x, y))


def _draw(
    lines: Sequence[_Line],
    *,
    salt: str,
    size: tuple[float, float],
    ticks: Sequence[str] = (),
    is_log: bool = False,
) -> Markup:
    """Draw lines as an SVG element.

    salt: makes the ids of this chart differ from those of others on the page, and repeat.
    size: width and height in inches.
    ticks: names of x = 0, 1, ...; without them x is a number of steps.
    """
    with _axes(salt, size) as (axes, drawn):
        for line in lines:
            colour, dash = _HEX[line.key.colour], [float(length) for length in line.key.dashes.split()]
            style = {"linestyle": (0, dash) if dash else "-", "marker": "o" if ticks else None, "markersize": 2.5}
            if line.low is not None:
                axes.vlines(line.x, line.low, line.high, color=colour, linewidth=0.8, alpha=0.6)
            axes.plot(line.x, line.y, color=colour, linewidth=1.3, **style)
        _set_ticks(axes, ticks, is_log)
    return drawn[0]


def _draw_costs(rows: Sequence[Row], keys: Sequence[Key], costs: Sequence[int], *, salt: str) -> Markup:
    """Draw a point per row over a cost. salt: see `_draw`."""
    with _axes(salt, (3.4, 2.1)) as (axes, drawn):
        for row, key, cost in zip(rows, keys, costs, strict=True):
            value, colour = row.metrics[REFERENCE_METRIC], _HEX[key.colour]
            if value.low is not None:
                axes.vlines(cost, value.low, value.high, color=colour, linewidth=0.8, alpha=0.6)
            axes.plot([cost], [value.mean], "o", color=colour, markersize=4)
        axes.set_xlim(0, 1.1 * max(*costs, 1))
        _set_ticks(axes, (), False)
        axes.set_ylim(bottom=0)
    return drawn[0]


@contextmanager
def _axes(salt: str, size: tuple[float, float]) -> Iterator[tuple[Axes, list[Markup]]]:
    """Yield axes, and a list that gets the SVG element at the end of the block. salt, size: see `_draw`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's matplotlibrc must not change the page
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.grid(axis="y", color=_HEX[_RULE], linewidth=0.5)
        drawn: list[Markup] = []
        yield axes, drawn
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    drawn.append(Markup(_to_element(buffer.getvalue())))


def _set_ticks(axes: Axes, ticks: Sequence[str], is_log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if ticks:
        if axes.get_ylim()[0] < 0.5 * axes.get_ylim()[1]:  # an axis from 0 would flatten PSNR and SSIM
            axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(ticks)), [encodable(tick)[:16] for tick in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _to_element(svg: str) -> str:
    """Turn an SVG file of matplotlib into an element of an HTML page.

    Removes the prolog, the namespaces and the ids that nothing refers to, and puts the CSS variables in.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would apply to the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href", "href")
    return re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match[0]], svg)
