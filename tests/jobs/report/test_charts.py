"""The charts have a line per row or term."""

import re
from dataclasses import replace

import numpy as np

from jobs.evaluation.metrics.value import Value
from jobs.report.charts import bin_charts
from jobs.report.data import Cost, Curves
from jobs.report.page import render
from tests.jobs.report.pages import Nodes, page, row


def test_a_dollar_in_the_name_of_a_bin_is_a_dollar():
    rows = [row("a", 5.0, by_bin={"$a_b$": {"l1_hole_percent": Value(4.0)}})]
    assert Nodes(render(page(rows=rows, bins=[("$a_b$", 1)]))).texts().count("$a_b$") == 2


def test_losses_have_a_chart_per_phase_and_gaps_are_left_out():
    curves = [
        Curves(generator="a", phase="edges", steps=[0, 10, 20], series={"l1": [100.0, float("nan"), 1.0]}),
        Curves(generator="a", phase="image", steps=np.arange(5000), series={"l1": np.ones(5000), "d": -np.ones(5000)}),
        Curves(generator="b", phase="all", steps=[0], series={"l1": [float("inf")]}),
        Curves(generator="c", phase="all", steps=[], series={}),
    ]
    html = render(page(curves=curves))
    assert html.count("<figure>") == 4
    assert "edges</bdi>, logarithmic" in html
    assert "image</bdi></small>" in html
    assert html.count("No finite loss was logged.") == 2
    assert len(html) < 60_000  # 5,000 steps are drawn as 200


def test_more_lines_than_colours_still_differ():
    rows = [row(f"g{n}", 5.0 + n, by_bin={"x": {"l1_hole_percent": Value(5.0)}}) for n in range(13)]
    legend = re.findall(r'style="stroke: (.*?)" stroke-dasharray="(.*?)"', render(page(rows=rows, bins=[("x", 1)])))
    assert len(set(legend)) == 13


def test_intervals_are_lines_and_every_metric_over_the_bins_that_some_row_has_is_a_chart():
    def by_bin(**metrics):
        return {name: {"l1_hole_percent": Value(5.0, 4.0, 6.0), **metrics} for name in ("x", "y")}

    rows = [row("a", 5.0, by_bin=by_bin(psnr_hole=Value(20.0))), row("b", 6.0, by_bin=by_bin())]
    charts = bin_charts(rows, ["x", "y"])
    assert [chart.title for chart in charts] == ["L1 in hole", "PSNR in hole"]
    plain = bin_charts([replace(each, by_bin={"x": {"l1_hole_percent": Value(5.0)}}) for each in rows], ["x", "y"])
    paths = [chart.svg.count("<path") for chart in (charts[0], plain[0])]
    assert paths[0] >= paths[1] + 2  # four intervals, and two points more


def test_costs_are_points_in_the_colours_of_the_generators():
    rows = [
        row(name, level, cost=Cost(images_seen=100, parameters=7, trained_parameters=9))
        for name, level in (("worse", 6.0), ("best", 5.0))
    ]
    html = render(page(rows=rows))
    chart = html[html.index("over images seen") :]
    assert re.findall(r'stroke: (.*?)".*?<bdi>(.*?)</bdi>', chart)[:2] == [
        ("var(--line-0)", "best"), ("var(--line-1)", "worse"),
    ]  # fmt: skip
