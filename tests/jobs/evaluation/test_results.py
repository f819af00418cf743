"""Parts of an evaluation, their summary, and the files that hold them."""

import shutil

import numpy as np
import pytest

from jobs.evaluation import summary
from jobs.evaluation.costs import Cost
from jobs.evaluation.loop import PartResult, divide_images
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.kid import kid
from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.parts import Parts
from jobs.evaluation.results import OVERALL, Group, Score, Summary, read_scores, read_summary, write_summary
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.summary import late_pairs, summarise

CONFIG = EvaluateConfig(bootstrap_samples=100)
LPIPS, FID = Missing("no AlexNet"), Missing("no Inception")


def score(key, bin_name, row="telea", **values):
    return Score(row=row, key=key, bin=bin_name, hole_ratio=0.15, values=values)


def part(first, scores, **others):
    return PartResult(first=first, keys=list(dict.fromkeys(score.key for score in scores)), scores=scores, **others)


@pytest.fixture
def summarised(tmp_path):
    """Return a function from parts to the parts on disk and their summary."""

    def run(*results):
        parts = Parts(tmp_path / "parts", "identity")
        for result in results[::-1]:  # the order in which they are finished does not matter
            parts.add(result)
        return parts, summarise(parts, tmp_path / "scores.parquet", CONFIG)["telea"]

    return run


def test_a_summary_has_all_pairs_and_every_bin_with_pairs(summarised, tmp_path):
    scores = [
        score("b", "0.1-0.2", psnr=20.0),
        score("a", "0.2-0.3", psnr=30.0, edge_recall=0.5),  # not of all pairs, nor of the first
        score("a", "0.1-0.2", psnr=25.0),
    ]
    _, groups = summarised(part(0, scores[:1], missing={"fid": FID}), part(8, scores[1:], missing={"fid": FID}))
    assert {name: group.pairs for name, group in groups.items()} == {OVERALL: 3, "0.1-0.2": 2, "0.2-0.3": 1}
    expected = bootstrap_interval([25.0, 30.0, 20.0], ["a", "a", "b"], seed=0, samples=100)
    assert groups[OVERALL].metrics == {"psnr": expected, "fid": FID, "edge_recall": Value(0.5, 0.5, 0.5, pairs=1)}
    assert groups["0.2-0.3"].metrics["psnr"] == Value(30.0, 30.0, 30.0)
    assert read_scores(tmp_path / "scores.parquet") == sorted(scores, key=lambda score: (score.key, score.bin))


def test_metrics_of_sets_are_those_of_all_parts_together(summarised):
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    results = []
    for first, images in ((0, slice(0, 1)), (1, slice(1, 4))):
        real = vectors[images]
        scores = [score(key, bin, psnr=20.0) for key in "abcd"[images] for bin in ("0.1-0.2", "0.2-0.3")]
        results.append(part(first, scores, real=[real], fake={"telea": [real.repeat(2, axis=0) + 1]}))
    parts, groups = summarised(*results)
    reason = "not computed: needs at least 2,048 images for FID, not 4"
    assert groups[OVERALL].metrics["fid"] == Missing(reason)
    assert "fid" not in groups["0.1-0.2"].metrics
    features = parts.features("telea")
    np.testing.assert_array_equal(features.real, vectors)
    np.testing.assert_array_equal(features.fake, vectors.repeat(2, axis=0) + 1)
    np.testing.assert_array_equal(features.images, [0, 0, 1, 1, 2, 2, 3, 3])
    assert groups["0.2-0.3"].metrics["kid"] == kid(Features(vectors, vectors + 1, np.arange(4), np.arange(4)))


def test_scores_of_a_classifier_are_left_out_where_its_memory_would_have_no_bound(summarised, monkeypatch):
    monkeypatch.setattr(summary, "IDS_MOST_PAIRS", 1)
    vectors = np.ones((1, 3), np.float32)
    scores = [score("a", bin, psnr=20.0) for bin in ("0.1-0.2", "0.2-0.3")]
    _, groups = summarised(part(0, scores, real=[vectors], fake={"telea": [vectors, vectors]}))
    assert groups[OVERALL].metrics["u_ids_percent"].reason.startswith("not computed: P-IDS and U-IDS of 2 pairs need")


@pytest.mark.parametrize("first_lacks_it", [True, False])
def test_a_metric_that_one_part_lacks_is_missing_in_the_summary(first_lacks_it, summarised):
    """Such as on a cluster where one node does not have the file of weights."""
    scores = [[score("a", "0.1-0.2", psnr=20.0, lpips_alex=0.5)], [score("b", "0.1-0.2", psnr=30.0)]]
    missing = [{}, {"fid": FID, "lpips_alex": LPIPS}]
    order = [1, 0] if first_lacks_it else [0, 1]
    _, groups = summarised(
        *(part(first, scores[number], missing=missing[number]) for first, number in enumerate(order))
    )
    assert groups[OVERALL].metrics["lpips_alex"] == LPIPS
    assert groups[OVERALL].metrics["fid"] == FID
    assert set(groups["0.1-0.2"].metrics) == {"psnr"}


def test_pairs_over_the_limit_and_the_gallery_come_back(summarised):
    late = [("telea", "c", "0.2-0.3"), ("telea", "b", "0.2-0.3")]
    gallery = {"b": {"member": b"bytes"}, "a": {}}
    costs = {"telea": Cost(seconds=2.0, pairs=6)}
    scores = [score("a", "0.1-0.2", psnr=20.0)]
    parts, _ = summarised(part(0, scores, over_limit=late, missing={"fid": FID}, gallery=gallery, costs=costs))
    (note,) = parts.notes()
    assert late_pairs([note]) == {"telea": [("b", "0.2-0.3"), ("c", "0.2-0.3")]}
    assert note.costs == costs
    assert dict(parts.gallery()) == gallery


def test_finished_parts_are_taken_up_and_those_of_another_evaluation_are_removed(tmp_path):
    divided = divide_images(20)
    parts = Parts(tmp_path, {"weights": "a"})
    parts.add(part(8, [score("a", "0.1-0.2", psnr=20.0)]))
    (torn,) = tmp_path.glob("*/000000008")
    shutil.copytree(torn, torn.with_name("000000016"))
    (torn.with_name("000000016") / "part.json").unlink()  # killed before the note was written
    assert Parts(tmp_path, {"weights": "a"}).unfinished(divided) == [range(8), range(16, 20)]
    assert Parts(tmp_path, {"weights": "b"}).unfinished(divided) == divided
    assert not torn.exists()


def test_a_summary_comes_back(tmp_path):
    metrics = {"psnr": Value(20.0, 19.0, 21.5), "fid": Value(float(np.float64(3.25))), "lpips_alex": LPIPS}
    written = Summary(
        "3f9a",
        2,
        {"telea": {OVERALL: Group(12, metrics), "0.1-0.2": Group(2, {})}},
        {"telea": [("key", "0.1-0.2")]},
        {"telea": "OpenCV's"},
    )
    write_summary(tmp_path / "summary.json", written)
    assert read_summary(tmp_path / "summary.json") == written
