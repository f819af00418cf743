"""Quality against cost: on the page what repeats, as data all of it."""

import re

from jobs.report.costs import quality_against_cost
from jobs.report.data import Cost
from jobs.report.page import render
from tests.jobs.report.pages import page, row

ROWS = [
    row("b", 6.0, cost=Cost(images_seen=16_000, parameters=1_000, trained_parameters=1_500)),
    row("a", 5.0, cost=Cost(images_seen=12_800, parameters=2_000, trained_parameters=2_500)),
    row("telea", 7.0, "baseline"),
]


def test_the_page_shows_images_and_parameters_of_trained_generators():
    table = re.search(r'<table class="costs sortable">.*?</table>', render(page(rows=ROWS)), re.DOTALL)[0]
    assert re.findall(r"<bdi>(.*?)</bdi></th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", table) == [
        ("a", "5.00", "12,800", "2,000", "2,500"),
        ("b", "6.00", "16,000", "1,000", "1,500"),
    ]
    assert "Quality against cost" not in render(page())


def test_the_data_join_quality_with_all_costs_and_unknown_ones_are_null():
    fills = {"a": {"seconds_per_image": 0.25, "peak_device_bytes": 7}, "telea": {"seconds_per_image": 0.5}}
    lines = {line["row"]: line for line in quality_against_cost(ROWS, fills, {"a": 2.5})}
    assert lines["a"] == {
        "row": "a", "kind": "generator", "l1_hole_percent": 5.0, "images_seen": 12_800, "parameters": 2_000,
        "device_hours": 2.5, "milliseconds_per_image": 250.0, "peak_device_bytes": 7,
    }  # fmt: skip
    assert lines["b"]["device_hours"] is lines["b"]["milliseconds_per_image"] is None
    assert (lines["telea"]["images_seen"], lines["telea"]["milliseconds_per_image"]) == (None, 500.0)
