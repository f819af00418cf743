"""The results as text say what the page says, and no name breaks the form."""

import csv
import io
import json
import re

import pytest

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Missing, Value
from jobs.report.formats import format_results
from jobs.report.plots import plot_tables
from tests.jobs.report.pages import HOSTILE, full_page, page, row

NAMES = (HOSTILE, "a|b", "50 % of_x & y # {z} \\ ~^$", "two\nlines", "=1+1")


def test_markdown_marks_the_best_and_the_level_and_says_what_absent_columns_need():
    level = Comparison(
        metric="l1_hole_percent", group="overall", first="a", second="b", difference=Value(-0.1), p_value=0.5
    )
    rows = [
        row("a", 5.0, metrics={"psnr": Value(20.0), "fid": Missing("not computed: needs weights")}),
        row("b", 5.1, metrics={"psnr": Missing("lost")}),
    ]
    text = format_results(page(rows=rows, comparisons=[level]), "markdown")
    assert "|  | L1 in hole % | PSNR dB |\n| --- | ---: | ---: |" in text
    assert "| a | **5.00** (4.50 – 5.50) | **20.00** |" in text
    assert "| b | <u>5.10</u> (4.60 – 5.60) | – (1) |" in text
    assert "1. lost" in text
    assert "FID: not computed: needs weights" in text
    assert "not significantly worse: b." in text


def test_csv_has_every_value_and_its_interval_once():
    rows = [
        row("x", 4.0, by_bin={"0.1-0.2": {"psnr": Value(20.0)}}, metrics={"fid": Missing("needs weights")}),
        row("x", 9.0, "untrained"),
    ]
    lines = list(csv.DictReader(io.StringIO(format_results(page(rows=rows), "csv"))))
    keys = [(line["row"], line["group"], line["metric"]) for line in lines]
    assert len(set(keys)) == len(keys)
    assert ("x_untrained", "overall", "l1_hole_percent") in keys
    assert ("x", "0.1-0.2", "psnr") in keys
    assert {"suite": "3f9a", "row": "x", "kind": "generator", "group": "overall", "metric": "l1_hole_percent",
            "mean": "4.0", "low": "3.5", "high": "4.5"} in lines  # fmt: skip
    assert not [line for line in lines if line["metric"] == "fid"]  # it has no value


def test_json_has_the_values_the_reasons_and_the_digests():
    tree = json.loads(format_results(full_page("x"), "json"))
    first = tree["rows"][0]["groups"]["overall"]
    assert first["l1_hole_percent"]["mean"] == 4.0
    assert first["fid"] == "x"
    assert tree["provenance"] == {"x": "x"}
    assert tree["comparisons"][0]["better"] == "x"


@pytest.mark.parametrize("name", NAMES)
def test_no_name_breaks_a_form(name):
    content = full_page(name)
    shape = [len(format_results(full_page("plain"), form).splitlines()) for form in ("markdown", "latex")]
    assert [len(format_results(content, form).splitlines()) for form in ("markdown", "latex")] == shape
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in format_results(content, "markdown").splitlines()
             if line.startswith("| ")}  # fmt: skip
    plain = {len(re.findall(r"(?<!\\)\|", line)) for line in format_results(full_page("plain"), "markdown").splitlines()
             if line.startswith("| ")}  # fmt: skip
    assert cells == plain
    table = format_results(content, "latex").split("\n", 1)[1]
    assert len(re.findall(r"(?<!\\)&", table)) == len(
        re.findall(r"(?<!\\)&", format_results(full_page("plain"), "latex"))
    )
    assert not re.search(r"(?<!\\)[%$#_]", table)
    assert name in [line["row"] for line in csv.DictReader(io.StringIO(format_results(content, "csv")))]
    assert json.loads(format_results(content, "json"))["dataset"] == name


def test_the_charts_are_tables_for_dvc():
    tables = plot_tables(full_page("x"))
    assert set(tables) == {"bins/l1_hole_percent.tsv", "costs.tsv"}
    lines = tables["bins/l1_hole_percent.tsv"].splitlines()
    assert lines[:2] == ["row\tbin\tmean\tlow\thigh", "x\tx\t3.0\t\t"]
    assert tables["costs.tsv"].splitlines()[1] == "x\t4.0\t3.5\t4.5\t800\t20"
