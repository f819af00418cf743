"""The figures behind docs/results.md: read from receipts and results, one entry per experiment and suite."""

import json

import pytest

from benchmarks import quality
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Group, Score, Summary, score_lines, write_summary, write_table
from jobs.runs.receipt import Receipt, write_receipt

METRICS = {"l1_hole_percent": Value(4.0, 3.0, 5.0), "psnr": Value(20.0, 19.0, 21.0)}
GROUPS = {OVERALL: Group(2, METRICS), "0.1-0.2": Group(2, METRICS)}


def write_results(root, name, rows, suite="s"):
    folder = root / "results" / name
    folder.mkdir(parents=True)
    write_summary(folder / "summary.json", Summary(suite, 2, dict.fromkeys(rows, GROUPS)))
    scores = (
        Score(row=row, key=key, bin="0.1-0.2", hole_ratio=0.15, values={"l1_hole_percent": error, "psnr": 20.0})
        for row, errors in rows.items()
        for key, error in errors.items()
    )
    write_table(folder / "per_image.parquet", score_lines(scores))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, "baselines", {"navier_stokes": {"a": 5.0, "b": 6.0}})
    write_results(tmp_path, "unet", {"unet": {"a": 4.0, "b": 4.0}, "unet_untrained": {"a": 9.0, "b": 9.0}})
    receipt = Receipt(
        generator="unet", config={}, edges=None, seed=1, steps=10, samples_seen=160, world_sizes=(1, 2),
        not_repeatable=(), images="i", columns={}, train={}, weights_sha256="w", experiment="e", parameters={},
    )  # fmt: skip
    (tmp_path / "models/unet").mkdir(parents=True)
    write_receipt(tmp_path / "models/unet", receipt)
    return tmp_path


def test_a_run_is_compared_pair_by_pair_and_replaces_the_same_experiment(checkout):
    quality.keep("track", classical=quality.classical_rows(checkout))
    row = quality.trained_row(checkout, "unet")
    assert row["minus_rival"] == [-1.5, -2.0, -1.0]  # the ends: one image drawn twice
    assert (row["images_seen"], row["processes"], row["l1_hole_percent"]) == (160, 2, [4.0, 3.0, 5.0])
    quality.keep("track", run=row | {"what": "old"})
    quality.keep("track", run=row | {"what": "new"})
    tree = json.loads((checkout / "docs/results/track.json").read_text())
    assert [run["what"] for run in tree["runs"]] == ["new"]
    assert tree["classical"]["rows"]["navier_stokes"]["bins"] == {"0.1-0.2": [4.0, 3.0, 5.0]}


def test_a_run_of_another_suite_is_refused(checkout):
    quality.keep("track", classical=quality.classical_rows(checkout) | {"suite": "other"})
    with pytest.raises(SystemExit, match="scored on another suite"):
        quality.keep("track", run=quality.trained_row(checkout, "unet"))
