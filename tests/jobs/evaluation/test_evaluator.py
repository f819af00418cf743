"""The evaluator scores with the networks it has, and gives a reason for each metric that it cannot compute."""

import logging

import numpy as np
import pytest

from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.metrics.fid import load_inception, sum_features
from jobs.evaluation.metrics.lpips import load_lpips, lpips
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.settings import EvaluateConfig, Weights
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import random_alexnet_state, random_inception_state, save

MISSING = {
    "fid": Missing("not computed: needs Inception-v3 weights (2015-12-05) for FID"),
    "lpips_alex": Missing("not computed: needs AlexNet weights (ImageNet) for LPIPS"),
}


def pairs(size=16):
    masks = (noise(2, size, size) > 127).astype(np.uint8)
    return noise(2, size, size, 3), noise(2, size, size, 3, seed=1), masks


@pytest.mark.parametrize("weights", [None, Weights("/nowhere/at/all.pth", "00")])
def test_without_weights_there_is_a_reason_and_a_warning_if_a_file_was_named(weights, caplog):
    with caplog.at_level(logging.WARNING):
        evaluator = Evaluator(EvaluateConfig(inception=weights, alexnet=weights))
    assert evaluator.missing == MISSING
    assert len(caplog.records) == (0 if weights is None else 2)
    truths, composites, masks = pairs()
    assert evaluator.fid_sums(truths, composites) is None
    values = dict(evaluator.score(truths, composites, masks))
    assert "lpips_alex" not in values
    for number in range(2):
        expected = score_pair(truths[number], composites[number], masks[number])
        assert {name: numbers[number] for name, numbers in values.items()} == expected


def test_with_weights_nothing_is_missing(tmp_path):
    inception = save(random_inception_state(), tmp_path / "inception.pth")
    alexnet = save(random_alexnet_state(), tmp_path / "alexnet.pth")
    evaluator = Evaluator(EvaluateConfig(inception=inception, alexnet=alexnet))
    assert evaluator.missing == {}
    truths, composites, masks = pairs(64)
    values = dict(evaluator.score(truths, composites, masks))
    assert values["lpips_alex"] == lpips(truths, composites, load_lpips(alexnet)).tolist()
    sums = evaluator.fid_sums(truths, composites)
    expected = sum_features(truths, composites, load_inception(inception))
    assert set(sums) == set(expected)
    assert all(np.array_equal(sums[name], expected[name]) for name in sums)
