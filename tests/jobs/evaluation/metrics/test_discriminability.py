"""P-IDS and U-IDS of sets whose values are known."""

import numpy as np
import pytest

from jobs.evaluation.metrics.discriminability import discriminability
from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.value import Missing


def scores(real, fake, **limits):
    features = Features(real, fake, np.arange(len(real)), np.arange(len(real)))
    return discriminability(features, samples=100, **limits)


def test_equal_sets_cannot_be_told_apart_and_a_tie_is_no_win():
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    found = scores(vectors, vectors, min_images=2)
    assert found["u_ids_percent"].mean == 50
    assert found["p_ids_percent"].mean == 0


def test_separated_sets_give_zero():
    vectors = np.random.default_rng(0).normal(size=(300, 8))
    found = scores(vectors, vectors + 100, min_images=2)
    assert (found["u_ids_percent"].mean, found["p_ids_percent"].mean) == (0, 0)


def test_sets_of_one_distribution_give_about_50_and_intervals():
    rng = np.random.default_rng(0)
    found = scores(rng.normal(size=(3000, 4)), rng.normal(size=(3000, 4)), min_images=2)
    for value in found.values():
        assert value.mean == pytest.approx(50, abs=4)
        assert value.low < value.mean < value.high


def test_values_equal_a_machine_fitted_without_our_code():
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(500, 4)), rng.normal(0.3, 1, size=(500, 4))
    machine = LinearSVC(dual=False).fit(np.vstack([real, fake]), [1] * 500 + [0] * 500)
    accuracy = machine.score(np.vstack([real, fake]), [1] * 500 + [0] * 500)
    wins = machine.decision_function(fake) > machine.decision_function(real)
    found = scores(real, fake, min_images=2)
    assert found["u_ids_percent"].mean == pytest.approx(100 * (1 - accuracy), rel=1e-9)
    assert found["p_ids_percent"].mean == pytest.approx(100 * wins.mean(), rel=1e-9)


def test_few_images_are_not_scored():
    reason = Missing("not computed: needs at least 2,500 images for P-IDS and U-IDS, not 2,499")
    vectors = np.zeros((2499, 2))
    assert scores(vectors, vectors) == {"p_ids_percent": reason, "u_ids_percent": reason}
