"""Summaries of shards, and the files that hold them."""

import numpy as np
import pytest

from jobs.evaluation.loop import PartResult
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.results import (
    OVERALL,
    Group,
    Score,
    Summary,
    read_scores,
    read_summary,
    write_scores,
    write_summary,
)
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.summary import late_pairs, summarise

CONFIG = EvaluateConfig(bootstrap_samples=100)
LPIPS, FID = Missing("no AlexNet"), Missing("no Inception")


def score(key, bin_name, row="telea", **values):
    return Score(row=row, key=key, bin=bin_name, hole_ratio=0.15, values=values)


def test_a_summary_has_all_pairs_and_every_bin_with_pairs():
    scores = [score("b", "0.1-0.2", psnr=20.0), score("a", "0.2-0.3", psnr=30.0), score("a", "0.1-0.2", psnr=25.0)]
    results = [
        PartResult(first=0, scores=scores[:1], missing={"fid": FID}),
        PartResult(first=1, scores=scores[1:], missing={"fid": FID}),
    ]
    groups = summarise(results, CONFIG)["telea"]
    assert {name: group.pairs for name, group in groups.items()} == {OVERALL: 3, "0.1-0.2": 2, "0.2-0.3": 1}
    expected = bootstrap_interval([25.0, 30.0, 20.0], ["a", "a", "b"], seed=0, samples=100)
    assert groups[OVERALL].metrics == {"psnr": expected, "fid": FID}
    assert groups["0.2-0.3"].metrics == {"psnr": Value(30.0, 30.0, 30.0)}


def features(*images):
    vectors = np.random.default_rng(0).normal(size=(len(images), 3))
    return [Features(vectors, vectors + 1, images, ("0.1-0.2",) * len(images))]


def test_metrics_of_sets_are_those_of_all_shards_together():
    results = [
        PartResult(
            first=number,
            scores=[score(image, "0.1-0.2", psnr=20.0) for image in images],
            features={"telea": features(*images)},
        )
        for number, images in enumerate((("a",), ("b", "c", "d")))
    ]
    groups = summarise(results, CONFIG)["telea"]
    reason = "not computed: needs at least 2,048 images for FID, not 4"
    assert groups[OVERALL].metrics["fid"] == Missing(reason)
    assert groups[OVERALL].metrics["kid"] == groups["0.1-0.2"].metrics["kid"]
    assert isinstance(groups[OVERALL].metrics["kid"], Value)
    assert "fid" not in groups["0.1-0.2"].metrics


@pytest.mark.parametrize("first_lacks_it", [True, False])
def test_a_metric_that_one_shard_lacks_is_missing_in_the_summary(first_lacks_it):
    """Such as on a cluster where one node does not have the file of weights."""
    whole = PartResult(
        first=0, scores=[score("a", "0.1-0.2", psnr=20.0, lpips_alex=0.5)], features={"telea": features("a")}
    )
    lacking = PartResult(first=1, scores=[score("b", "0.1-0.2", psnr=30.0)], missing={"fid": FID, "lpips_alex": LPIPS})
    results = [lacking, whole] if first_lacks_it else [whole, lacking]
    groups = summarise(results, CONFIG)["telea"]
    assert groups[OVERALL].metrics["lpips_alex"] == LPIPS
    assert groups[OVERALL].metrics["fid"] == FID
    assert set(groups["0.1-0.2"].metrics) == {"psnr"}


def test_a_mean_over_some_pairs_says_over_how_many_and_pairs_over_the_limit_are_named():
    scores = [score("a", "0.1-0.2", psnr=20.0, edge_recall=0.5), score("b", "0.1-0.2", psnr=30.0)]
    late = [("telea", "c", "0.2-0.3"), ("telea", "b", "0.2-0.3")]
    results = [PartResult(first=0, scores=scores, over_limit=late, missing={"fid": FID})]
    metrics = summarise(results, CONFIG)["telea"][OVERALL].metrics
    assert metrics["edge_recall"] == Value(0.5, 0.5, 0.5, pairs=1)
    assert metrics["psnr"].pairs is None
    assert late_pairs(results) == {"telea": [("b", "0.2-0.3"), ("c", "0.2-0.3")]}


def test_scores_come_back_sorted(tmp_path):
    scores = [
        score("b", "0.1-0.2", psnr=20.0),
        score("a", "0.2-0.3", psnr=30.0, edge_recall=0.5),  # not of all pairs, nor of the first
        score("a", "0.1-0.2", psnr=25.0),
    ]
    write_scores(tmp_path / "scores.parquet", scores)
    assert read_scores(tmp_path / "scores.parquet") == sorted(scores, key=lambda score: (score.key, score.bin))


def test_a_summary_comes_back(tmp_path):
    metrics = {"psnr": Value(20.0, 19.0, 21.5), "fid": Value(float(np.float64(3.25))), "lpips_alex": LPIPS}
    summary = Summary(
        "3f9a",
        2,
        {"telea": {OVERALL: Group(12, metrics), "0.1-0.2": Group(2, {})}},
        {"telea": [("key", "0.1-0.2")]},
        {"telea": "OpenCV's"},
    )
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary
