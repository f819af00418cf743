"""FID against its formula."""

import numpy as np
import pytest
import scipy.linalg
import torch

from jobs.evaluation.metrics.fid import fid
from jobs.evaluation.metrics.inception import Features, extract_features, load_inception
from jobs.evaluation.metrics.value import Missing
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import MeanColour, random_inception_state, save


def features(real, fake, images=None):
    numbers = np.arange(len(fake))
    return Features(real, fake, numbers if images is None else images, numbers)


def formula(real, fake):
    """FID with a matrix root."""
    s1, s2 = np.cov(real.T), np.cov(fake.T)
    return np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)


def test_fid_of_a_set_with_itself_is_zero():
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    assert abs(fid(features(vectors, vectors), min_images=2).mean) < 1e-9


def test_fid_of_a_shift_is_its_square():
    vectors = np.random.default_rng(0).normal(size=(50, 3))
    shifted = vectors + np.array([0, 7, 0])
    assert fid(features(vectors, shifted), min_images=2).mean == pytest.approx(49, abs=1e-9)


@pytest.mark.parametrize("count", [60, 5])  # with five vectors both covariances are singular
def test_fid_equals_the_formula_with_a_matrix_root(count):
    real, fake = (np.random.default_rng(seed).normal(size=(count, 8)) for seed in (1, 2))
    fake[:, 1] = fake[:, 0] / 2
    assert fid(features(real, fake), min_images=2).mean == pytest.approx(formula(real, fake), rel=1e-6)


def test_fid_equals_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, fake = noise(40, 4, 4, 3), noise(40, 4, 4, 3, seed=1)
    metric = FrechetInceptionDistance(feature=MeanColour()).set_dtype(torch.float64)
    for pictures, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(pictures).permute(0, 3, 1, 2), real=is_real)
    sides = [extract_features(pictures, MeanColour(), batch_size=7) for pictures in (real, fake)]
    assert fid(features(*sides), min_images=2).mean == pytest.approx(float(metric.compute()), rel=1e-5)


def test_fid_of_few_images_is_not_reported_however_many_masks_they_have():
    vectors, images = np.zeros((4094, 3)), np.arange(4094) // 2
    reason = "not computed: needs at least 2,048 images for FID, not 2,047"
    assert fid(features(vectors, vectors, images)) == Missing(reason)


def test_fid_of_many_blocks_and_of_some_pairs_equals_the_formula():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(1300, 6)) + 100, rng.normal(1, 2, size=(2600, 6)) + 100
    images, chosen = np.arange(2600) // 2, np.arange(100, 2400)
    some = Features(real, fake, images, chosen)
    assert len(list(some.blocks())) == 3
    assert some.num_images == 1150
    assert fid(some, min_images=2).mean == pytest.approx(formula(real[images[chosen]], fake[chosen]), rel=1e-9)


def test_features_do_not_depend_on_the_batch():
    pictures = noise(5, 4, 4, 3)
    whole = extract_features(pictures, MeanColour())
    np.testing.assert_allclose(extract_features(list(pictures), MeanColour(), batch_size=2), whole)


def test_inception_is_read_from_the_file(tmp_path):
    state = random_inception_state()
    before = torch.get_rng_state()
    network = load_inception(save(state, tmp_path / "inception.pth"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(
        network.state_dict()["Mixed_7c.branch_pool.conv.weight"], state["Mixed_7c.branch_pool.conv.weight"]
    )
    assert not network.training
    assert network.use_antialias is False
    assert extract_features(noise(2, 32, 32, 3), network).shape == (2, 2048)
