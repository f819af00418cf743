"""Published numbers are compared only under their own protocol, and the table of them is sound."""

import re
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from datasets.sources import SOURCES
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.catalogue import BY_NAME
from jobs.evaluation.metrics.value import Missing, Value
from jobs.generators import names
from jobs.report.data import Conditions
from jobs.report.page import render
from jobs.report.published import Protocol, Published, PublishedTable, published_lines, read_published
from masks.config import MaskConfig
from masks.hole_ratio import BINS
from tests.jobs.report.pages import page, row

CONDITIONS = Conditions(dataset="places2", size="256 × 256", mask_kind="files", images=36_500, track="paper")
TABLE = PublishedTable(
    {"psnr": {"absolute": 0.5}, "fid": {"relative": 0.1}},
    {"p": Protocol(data="places2", size=256, masks="NVIDIA's", kind="files", images=36_500)},
    [
        Published(
            method="A", row="a", protocol="p", source="Paper", table="Table 1", certainty="read",
            values={
                "psnr": {"0.1-0.2": 25.0, "0.2-0.3": 22.0, "centre": 20.0},
                "fid": {"0.1-0.2": 10.0},
                "psnr_grey": {"0.1-0.2": 25.0},
            },
        )
    ],
)  # fmt: skip
ROW = row(
    "a", 5.0,
    by_bin={
        "0.1-0.2": {"psnr": Value(25.4), "fid": Missing("not computed: needs weights")},
        "0.2-0.3": {"psnr": Value(22.6)},
    },
)  # fmt: skip


def verdicts(a_row=ROW, conditions=CONDITIONS):
    return [(line.what, *line.verdict) for line in published_lines([a_row], conditions, TABLE)]


def test_a_number_under_its_own_protocol_is_reproduced_within_the_tolerance():
    assert verdicts() == [
        ("PSNR (dB), 0.1-0.2", "reproduced", "differs by +0.4"),
        ("PSNR (dB), 0.2-0.3", "not reproduced", "differs by +0.6"),
        ("PSNR (dB), centre", "not comparable", "the suite has no bin centre"),
        ("FID, 0.1-0.2", "not comparable", "FID was not computed here"),
        ("psnr_grey, 0.1-0.2", "not comparable", "the source defines the metric differently, or not at all"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"track": "common"}, "the row is not on the paper track"),
        ({"track": None}, "the row is not on the paper track"),
        ({"dataset": "photos"}, "data set photos, not places2"),
        ({"size": "64 × 64"}, "images of 64 × 64, not 256"),
        ({"mask_kind": "free_form"}, "masks free_form, not NVIDIA's"),
        ({"images": 10_000}, "10,000 images, not 36,500"),
    ],
)
def test_another_protocol_gives_no_verdict_but_the_reason(change, reason):
    conditions = replace(CONDITIONS, **change)
    assert verdicts(conditions=conditions) == [("PSNR (dB), FID, psnr_grey", "not comparable", reason)]


def test_only_rows_of_the_page_are_shown_and_untrained_ones_never():
    assert verdicts(row("b", 5.0)) == []
    assert verdicts(row("a", 5.0, "untrained")) == []
    baseline = row("a", 5.0, "baseline", by_bin=ROW.by_bin)
    assert verdicts(baseline, replace(CONDITIONS, track=None)) == verdicts()
    html = render(page(published=published_lines([ROW], CONDITIONS, TABLE)))
    text = re.sub(r"<[^>]*>", " ", html[html.index("Published numbers") :])
    assert re.search(
        r"Paper, Table 1; protocol p; read\s+PSNR \(dB\), 0\.1-0\.2\s+25\s+25\.40\s+± 0\.5\s+reproduced", text
    )


def test_every_entry_of_the_table_has_its_protocol_row_and_known_bins():
    table = read_published()
    kinds = {*get_args(get_type_hints(MaskConfig)["kind"]), "other"}
    assert {protocol.kind for protocol in table.protocols.values()} <= kinds
    assert {protocol.data for protocol in table.protocols.values()} <= set(SOURCES)
    assert len(table.numbers) > 100
    for entry in table.numbers:
        assert entry.protocol in table.protocols
        assert entry.row is None or entry.row in (*names(), *BASELINES), entry.row
        assert entry.certainty in ("read", "quoted", "recalled")
        assert entry.values
        for metric, by_bin in entry.values.items():
            assert (metric in BY_NAME) == (metric in table.tolerances), metric
            assert by_bin
            assert all(isinstance(number, int | float) for number in by_bin.values())
    bins = {name for name, _, _ in BINS}
    known = {key for entry in table.numbers for by_bin in entry.values.values() for key in by_bin}
    assert bins <= known


def test_some_entries_of_the_table():
    numbers = {(entry.method, entry.protocol): entry for entry in read_published().numbers}
    first = numbers["PConv", "places2-512-nvidia-border"]
    assert first.certainty == "read"
    assert first.values["psnr"] == {"0.1-0.2": 28.32, "0.2-0.3": 25.25, "0.3-0.4": 22.89}
    edges = numbers["EdgeConnect", "places2-256-nvidia-grey"]
    assert edges.certainty == "recalled"
    assert edges.values["mae_ratio"]["0.1-0.2"] == 0.015
    assert numbers["MAT 8M", "places2-512-mat"].values["p_ids_percent"] == {"small": 31.72, "large": 23.42}
