"""The evaluator scores with the networks it has, and gives a reason for each metric that it cannot compute."""

import logging
import re

import numpy as np
import pytest

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.catalogue import SET_METRICS
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.metrics.inception import extract_features, load_inception
from jobs.evaluation.metrics.lpips import load_lpips, lpips
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.settings import EvaluateConfig, Weights
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import (
    random_alexnet_state,
    random_inception_state,
    random_vgg16_state,
    save,
)

FEATURE_METRICS = {*SET_METRICS, "lpips_alex", "lpips_vgg"}


def pairs(size=16):
    masks = (noise(2, size, size) > 127).astype(np.uint8)
    return noise(size, size, 3), noise(2, size, size, 3, seed=1), masks


@pytest.mark.parametrize(
    ("is_named", "is_there", "reason"),
    [
        (False, False, "not computed: needs .* weights .*; set evaluate"),
        (True, False, "not computed: needs .* weights .*weights.pth does not exist"),
        (True, True, r"not computed: .*weights.pth: SHA-256 is [0-9a-f]{64}, expected 0000"),
    ],
)
def test_without_the_configured_weights_there_is_a_reason_and_no_number(is_named, is_there, reason, tmp_path, caplog):
    path = tmp_path / "weights.pth"
    if is_there:
        path.write_bytes(b"other weights")
    weights = Weights(path, "0" * 64) if is_named else None
    with caplog.at_level(logging.WARNING):
        evaluator = Evaluator(EvaluateConfig(inception=weights, alexnet=weights, vgg16=weights))
    assert set(evaluator.missing) == FEATURE_METRICS
    for missing in evaluator.missing.values():
        assert re.match(reason, missing.reason)
    assert len(caplog.records) == 3 * is_named
    image, composites, masks = pairs()
    assert not evaluator.has_features
    assert evaluator.score_features(image, composites) == [{}, {}]
    values = evaluator.score_pixels(image, composites, masks)
    assert values == [score_pair(image, *pair) for pair in zip(composites, masks, strict=True)]
    assert "176 x 176" in evaluator.missing["ms_ssim"].reason


def test_with_weights_nothing_is_missing_and_the_numbers_are_those_of_the_networks(tmp_path):
    inception = save(random_inception_state(), tmp_path / "inception.pth")
    alexnet = save(random_alexnet_state(), tmp_path / "alexnet.pth")
    vgg16 = save(random_vgg16_state(), tmp_path / "vgg16.pth")
    evaluator = Evaluator(EvaluateConfig(inception=inception, alexnet=alexnet, vgg16=vgg16))
    image, composites, masks = pairs(176)
    assert "ms_ssim" in evaluator.score_pixels(image, composites, masks)[0]
    values = evaluator.score_features(image, composites)
    assert evaluator.missing == {}
    network = load_lpips(alexnet)
    assert [of_pair["lpips_alex"] for of_pair in values] == lpips([image, image], composites, network).tolist()
    network = load_inception(inception)
    assert evaluator.has_features
    np.testing.assert_array_equal(evaluator.features(composites), extract_features(composites, network))


def test_edges_are_scored_only_where_the_hole_hides_some():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 200
    truth = canny_edges(image, EdgeConfig())
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[0, 8:24, 8:24] = 1  # over the only edge
    masks[1, 8:24, 1:9] = 1
    assert truth[masks[0] == 1].any()
    predicted = np.stack([128 * truth, 127 * truth])
    values = Evaluator(EvaluateConfig()).score_pixels(image, np.stack([image, image]), masks, predicted)
    assert values[0]["edge_precision"] == values[0]["edge_recall"] == pytest.approx(1)
    assert "edge_precision" not in values[1]
    faint = Evaluator(EvaluateConfig()).score_pixels(image, np.stack([image, image]), masks, predicted[::-1])
    assert faint[0]["edge_recall"] == 0  # 127 of 255 is below one half
