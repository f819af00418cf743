"""The suite's identity covers its images, its masks and every file of metric code."""

import shutil
from types import SimpleNamespace

import pytest

from jobs.evaluation import suite
from jobs.evaluation.settings import FEATURE_WEIGHTS, EvaluateConfig, Weights

CONFIG = EvaluateConfig()


def column(digest):
    return SimpleNamespace(manifest=SimpleNamespace(digest=digest, dataset="d", split="val", parameters={}))


@pytest.mark.parametrize("name", FEATURE_WEIGHTS)
def test_the_identity_covers_the_digest_of_feature_weights_and_not_their_path(name):
    ids = [
        suite.suite_id(column("a"), column("b"), EvaluateConfig(**{name: weights}))
        for weights in (None, Weights("x", "0"), Weights("y", "0"), Weights("x", "1"))
    ]
    assert len(set(ids)) == 3
    assert ids[1] == ids[2]


def test_the_identity_covers_images_masks_and_every_file_of_metric_code(tmp_path, monkeypatch):
    before = suite.suite_id(column("a"), column("b"), CONFIG)
    assert before == suite.suite_id(column("a"), column("b"), CONFIG)
    assert before != suite.suite_id(column("c"), column("b"), CONFIG)
    assert before != suite.suite_id(column("a"), column("c"), CONFIG)
    code = tmp_path / "metrics"
    shutil.copytree(suite._METRICS, code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(suite, "_METRICS", code)
    assert suite.suite_id(column("a"), column("b"), CONFIG) == before
    paths = sorted(code.glob("*.py"))
    assert {"pixels.py", "fid.py", "lpips.py", "intervals.py"} <= {path.name for path in paths}
    for path in paths:
        text = path.read_text()
        path.write_text(text + "#")
        assert suite.suite_id(column("a"), column("b"), CONFIG) != before, path.name
        path.write_text(text)


def test_adding_images_hardly_changes_the_gallery():
    keys = [f"image {number}" for number in range(100)]
    chosen = suite.gallery_keys(keys, 10)
    assert len(chosen) == 10
    assert len(chosen & suite.gallery_keys([*keys, "another"], 10)) >= 9
