"""Classical fillings keep what is visible, see nothing of what is hidden and fill every hole."""

import sys
from typing import get_args

import numpy as np
import pytest

from jobs.evaluation.baselines import BASELINES, BaselineError, mean_colour, patch_match, telea
from jobs.evaluation.settings import BaselineName


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


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("mean_colour", 0), ("telea", 3), ("navier_stokes", 0), ("biharmonic", 0), ("patch_match", 0)],
)
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
    assert tuple(BASELINES) == get_args(BaselineName)
    assert all(baseline.description for baseline in BASELINES.values())


@pytest.mark.parametrize("wrong", [np.full((24, 32), 255, np.uint8), np.zeros((24, 31), np.uint8)])
def test_wrong_masks_are_refused(wrong, image):
    with pytest.raises(ValueError, match="mask must be"):
        mean_colour(image, wrong)


def test_a_pattern_that_repeats_is_found_by_patch_match_alone():
    tile = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    image = np.tile(tile, (8, 8, 1))
    mask = np.zeros((128, 128), np.uint8)
    mask[40:72, 48:80] = 1

    def psnr(filled):
        return 10 * np.log10(255**2 / np.mean((filled[mask == 1].astype(float) - image[mask == 1]) ** 2))

    assert psnr(patch_match(image, mask)) > 25
    assert psnr(telea(image, mask)) < 15
    assert np.array_equal(patch_match(image, mask), patch_match(image, mask))


def test_a_missing_extra_is_named_and_the_others_still_work(monkeypatch, image, mask):
    monkeypatch.setitem(sys.modules, "patchmatch", None)  # what Python does for a package that is not there
    with pytest.raises(BaselineError, match="extra `classical`, or remove patch_match from"):
        patch_match(image, mask)
    for name in set(BASELINES) - {"patch_match"}:
        BASELINES[name].fill(image, mask)
