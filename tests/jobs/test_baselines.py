"""Classical fillings keep what is visible, see nothing of what is hidden and fill every hole."""

import numpy as np
import pytest

from jobs.baselines import BASELINES, mean_colour, telea


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((24, 32), np.uint8)
    mask[5:15, 0:12] = 1  # touches the border
    mask[20, 30] = 1
    return mask


fillings = pytest.mark.parametrize("fill", [baseline.fill for baseline in BASELINES.values()], ids=BASELINES)


@fillings
def test_valid_pixels_are_kept_and_inputs_are_not_touched(fill, image, mask):
    before = image.copy(), mask.copy()
    filled = fill(image, mask)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[mask == 0], image[mask == 0])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@fillings
def test_hidden_pixels_do_not_matter(fill, image, mask):
    other = image.copy()
    other[mask == 1] = 255 - other[mask == 1]
    np.testing.assert_array_equal(fill(image, mask), fill(other, mask))


@pytest.mark.parametrize(("name", "tolerance"), [("mean_colour", 0), ("telea", 3), ("navier_stokes", 0)])
def test_one_colour_is_continued_up_to_the_ripple_of_telea(name, tolerance, mask):
    image = np.full((24, 32, 3), (200, 30, 90), np.uint8)
    np.testing.assert_allclose(BASELINES[name].fill(image, mask).astype(int), image, rtol=0, atol=tolerance)


@fillings
def test_channels_are_independent(fill, image, mask):
    np.testing.assert_array_equal(fill(image[..., ::-1].copy(), mask), fill(image, mask)[..., ::-1])


@fillings
def test_nothing_visible_becomes_mid_grey_and_nothing_hidden_stays(fill, image):
    assert (fill(image, np.ones((24, 32), np.uint8)) == 128).all()
    np.testing.assert_array_equal(fill(image, np.zeros((24, 32), np.uint8)), image)


def test_mean_colour_is_the_mean_of_visible_pixels_rounded_half_up():
    image = np.array([[[10, 0, 1], [13, 255, 2], [99, 99, 99]]], np.uint8)
    filled = mean_colour(image, np.array([[0, 0, 1]], np.uint8))
    assert filled[0, 2].tolist() == [12, 128, 2]  # of 11.5, 127.5 and 1.5


def test_a_ramp_is_continued_better_by_telea_than_by_the_mean():
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 4:24] = 1
    error = {fill: np.abs(fill(ramp, mask) - ramp.astype(float)).mean() for fill in (telea, mean_colour)}
    assert error[telea] < error[mean_colour] / 4


def test_every_baseline_says_what_it_does():
    assert list(BASELINES) == ["mean_colour", "telea", "navier_stokes"]
    assert all(baseline.description for baseline in BASELINES.values())


@pytest.mark.parametrize("wrong", [np.full((24, 32), 255, np.uint8), np.zeros((24, 31), np.uint8)])
def test_wrong_masks_are_refused(wrong, image):
    with pytest.raises(ValueError, match="mask must be"):
        mean_colour(image, wrong)
