"""KID against torchmetrics and a slow loop."""

import numpy as np
import pytest
import torch

from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.kid import kid
from jobs.evaluation.metrics.value import Missing


def features(count, size=16, shift=0.0):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(count, size)), rng.normal(shift, 1, size=(count, size))
    return Features(real, fake, np.arange(count), np.arange(count))


def test_kid_equals_a_slow_loop():
    few = features(6, shift=0.5)

    def kernel(x, y):
        return (float(x @ y) / 16 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum(kernel(side[i], side[j]) for side in (few.real, few.fake) for i, j in pairs if i != j) / 30
    assert kid(few).mean == pytest.approx(within - 2 * sum(kernel(few.real[i], few.fake[j]) for i, j in pairs) / 36)


def test_kid_equals_that_of_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    some = features(50, shift=0.5)
    expected = poly_mmd(*(torch.from_numpy(side) for side in (some.real, some.fake)), gamma=1 / 16)
    assert kid(some).mean == pytest.approx(float(expected), rel=1e-9)


def test_kid_is_the_mean_over_blocks_and_unbiased():
    many = features(4000)
    value = kid(many, block=100)
    assert value == kid(many, block=100)
    assert value.low < 0 < value.high  # the two sets are of one distribution
    assert kid(features(4000, shift=0.2), block=100).low > value.high
    assert kid(features(400), block=100).low is None


def test_one_image_has_no_kid():
    assert kid(features(1)) == Missing("not computed: needs at least 2 images for KID, not 1")
