"""Intervals against slow loops and known distributions."""

import numpy as np
import pytest

from jobs.evaluation.metrics.intervals import bootstrap_interval, paired_difference
from jobs.evaluation.metrics.value import Value


def test_constant_values_have_an_interval_without_width():
    assert bootstrap_interval([0.1] * 9, list("aaabbbccc"), seed=1) == Value(0.1, 0.1, 0.1)


def test_the_seed_decides_and_nothing_else():
    values, images = np.random.default_rng(0).normal(size=300), [f"image {n // 3}" for n in range(300)]
    first = bootstrap_interval(values, images, seed=1)
    assert first == bootstrap_interval(values, images, seed=1)
    assert first != bootstrap_interval(values, images, seed=2)
    assert first.mean == pytest.approx(values.mean(), abs=1e-12)


def test_interval_of_a_mean_is_1_96_standard_errors():
    values = np.random.default_rng(0).normal(5, 2, size=2000)
    interval = bootstrap_interval(values, np.arange(2000), seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_images_are_resampled_with_all_their_masks():
    # Nine equal masks on each image are worth one: nine times the pairs, the interval of the images alone.
    values = np.random.default_rng(0).normal(size=100)
    alone = bootstrap_interval(values, np.arange(100), seed=1)
    together = bootstrap_interval(values.repeat(9), np.arange(100).repeat(9), seed=1)
    assert together.low == pytest.approx(alone.low, abs=1e-12)
    assert together.high == pytest.approx(alone.high, abs=1e-12)


def test_interval_agrees_with_a_slow_loop_over_unequal_images():
    values, images = np.arange(12.0) ** 2, np.array(list("aabbbbcdddef"))
    rng, means = np.random.default_rng(5), []
    for _ in range(4000):
        chosen = rng.choice(list("abcdef"), size=6)
        means.append(np.concatenate([values[images == image] for image in chosen]).mean())
    interval = bootstrap_interval(values, images.tolist(), seed=1, samples=4000)
    assert (interval.low, interval.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), rel=0.05)


def test_difference_of_a_method_with_itself_is_zero():
    values, images = np.random.default_rng(0).random(30), np.arange(30) // 3
    assert paired_difference(values, values, images, seed=1) == Value(0, 0, 0)


def test_paired_difference_is_tighter_than_two_intervals():
    rng = np.random.default_rng(0)
    difficulty, images = rng.normal(10, 5, size=200), np.arange(200)
    first, second = difficulty + rng.normal(0, 0.1, 200), difficulty + 0.2
    difference = paired_difference(first, second, images, seed=1)
    assert difference.high < 0
    assert bootstrap_interval(first, images, seed=1).high > bootstrap_interval(second, images, seed=1).low


def test_values_without_images_or_with_nan_are_refused():
    for values, images in (([], []), ([1.0], ["a", "b"])):
        with pytest.raises(ValueError, match="one image per value"):
            bootstrap_interval(values, images, seed=1)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([np.nan], ["a"], seed=1)
    with pytest.raises(ValueError, match="same pairs"):
        paired_difference([1.0], [1.0, 2.0], ["a", "b"], seed=1)
