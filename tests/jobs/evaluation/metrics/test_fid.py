"""FID against its formula."""

import numpy as np
import pytest
import scipy.linalg
import torch

from jobs.evaluation.metrics.fid import fid, load_inception, sum_features
from jobs.evaluation.metrics.value import Missing
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import MeanColour, random_inception_state, save


def dots(colours):
    """Pictures of one colour each: (N, 3) -> (N, 4, 4, 3)."""
    return np.broadcast_to(np.asarray(colours, np.uint8)[:, None, None], (len(colours), 4, 4, 3))


def fid_at_once(real, fake, network, *, min_images=2, batch_size=32):
    return fid([sum_features(real, fake, network, batch_size=batch_size)], min_images=min_images).mean


def formula(real, fake):
    """FID of colours, (N, 3) each, with a matrix root."""
    s1, s2 = np.cov(real.T), np.cov(fake.T)
    return np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)


def test_fid_of_a_set_with_itself_is_zero():
    pictures = noise(40, 4, 4, 3)
    assert abs(fid_at_once(pictures, list(pictures), MeanColour())) < 1e-3


def test_fid_of_a_shift_is_its_square():
    colours = np.random.default_rng(0).integers(20, 200, (50, 3))
    shifted = colours + np.array([0, 7, 0])
    assert fid_at_once(dots(colours), dots(shifted), MeanColour()) == pytest.approx(49, abs=1e-6)


def test_fid_equals_the_formula_with_a_matrix_root():
    real, fake = (np.random.default_rng(seed).integers(0, 256, (60, 3)) for seed in (1, 2))
    fake[:, 1] = fake[:, 0] // 2
    for batch_size in (1, 7, 60):  # the last, shorter batch counts
        computed = fid_at_once(dots(real), dots(fake), MeanColour(), batch_size=batch_size)
        assert computed == pytest.approx(formula(real, fake), rel=1e-6)


def test_fid_of_several_sums_is_that_of_the_whole():
    rng = np.random.default_rng(8)
    real, fake = rng.integers(0, 256, (40, 3)), rng.integers(0, 200, (40, 3))
    slices = slice(0, 7), slice(7, 30), slice(30, 40)
    sums = [sum_features(dots(real[s]), dots(fake[s]), MeanColour()) for s in slices]
    whole = fid_at_once(dots(real), dots(fake), MeanColour(), min_images=40)
    assert fid(sums, min_images=40).mean == pytest.approx(whole, rel=1e-9)
    assert whole == pytest.approx(formula(real, fake), rel=1e-6)
    assert isinstance(fid(sums, min_images=41), Missing)


def test_fid_of_few_images_is_not_reported():
    pictures = dots(np.zeros((2047, 3)))
    reason = "not computed: needs at least 2,048 images for FID, not 2,047"
    assert fid([sum_features(pictures, pictures, MeanColour())]) == Missing(reason)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one list"):
        sum_features(dots(np.zeros((3, 3))), dots(np.zeros((2, 3))), MeanColour())


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
    pictures = noise(2, 32, 32, 3)
    assert network(torch.from_numpy(pictures).permute(0, 3, 1, 2)).shape == (2, 2048)
    assert abs(fid_at_once(pictures, pictures, network)) < 1e-3
