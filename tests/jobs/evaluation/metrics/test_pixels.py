"""Metrics of one pair of pictures against numbers worked out by hand and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray

from jobs.evaluation.metrics.pixels import composite_uint8, mae_ratio, score_pair, to_uint8, tv_percent
from tests.jobs.evaluation.metrics.pictures import noise


def grey(level, height=16, width=16):
    return np.full((height, width, 3), level, np.uint8)


def half_hole(height=16, width=16):
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    return mask


# 8 bits


def test_levels_are_rounded_half_up_and_clipped():
    outputs = np.array([-1, 0.5 / 127.5 - 1, 0.4999 / 127.5 - 1, 0, 1, 1.5, -np.inf, np.inf])
    assert to_uint8(outputs).tolist() == [0, 1, 0, 128, 255, 255, 0, 255]


def test_every_level_survives_the_way_to_float32_and_back():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels.astype(np.float32) / np.float32(127.5) - np.float32(1)), levels)


def test_tensors_become_pictures_with_channels_last():
    output = torch.zeros(2, 3, 4, 5, requires_grad=True, dtype=torch.bfloat16)
    assert to_uint8(output).shape == (2, 4, 5, 3)
    assert to_uint8(output[0]).shape == (4, 5, 3)
    with pytest.raises(ValueError, match="N, 3, H, W"):
        to_uint8(torch.zeros(2, 4, 5, 3))


def test_nan_is_no_grey_level():
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([0.0, np.nan]))


def test_composite_keeps_valid_pixels_and_takes_the_output_in_the_hole():
    image, output, mask = noise(2, 16, 16, 3), noise(2, 16, 16, 3, seed=1), half_hole()
    composite = composite_uint8(output, image, mask)
    assert composite.dtype == np.uint8
    np.testing.assert_array_equal(composite[:, :, 8:], image[:, :, 8:])
    np.testing.assert_array_equal(composite[:, :, :8], output[:, :, :8])
    np.testing.assert_array_equal(composite_uint8(output, image, np.stack([mask, mask])), composite)
    np.testing.assert_array_equal(composite_uint8(output[0], image[0], mask), composite[0])


def test_masks_of_another_shape_or_range_are_refused():
    image = grey(0)
    for mask in (np.ones((16, 8), np.uint8), half_hole() * 255, half_hole()[None]):
        with pytest.raises(ValueError, match="mask must be"):
            composite_uint8(image, image, mask)


def test_pictures_of_another_type_or_shape_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        score_pair(grey(0).astype(np.float32), grey(0), half_hole())
    with pytest.raises(ValueError, match="one shape"):
        score_pair(grey(0), grey(0, 16, 17), half_hole())
    with pytest.raises(ValueError, match="one picture"):
        score_pair(noise(2, 16, 16, 3), noise(2, 16, 16, 3), half_hole())


# Pairs


def test_difference_of_one_level_gives_48_13_db():
    assert score_pair(grey(100), grey(101), half_hole())["psnr"] == pytest.approx(48.1308, abs=5e-5)


def test_difference_of_16_on_a_quarter_gives_30_07_db():
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8] = 1
    scores = score_pair(grey(100), composite_uint8(grey(116), grey(100), mask), mask)
    assert scores["psnr"] == pytest.approx(30.0690, abs=5e-5)
    assert scores["psnr_hole"] == pytest.approx(scores["psnr"] - 6.0206, abs=5e-5)


def test_difference_of_51_on_half_gives_10_percent_l1_and_2_percent_l2():
    mask = half_hole()
    scores = score_pair(grey(200), composite_uint8(grey(149), grey(200), mask), mask)
    assert scores["l1_percent"] == pytest.approx(10, abs=1e-12)
    assert scores["l1_hole_percent"] == pytest.approx(20, abs=1e-12)
    assert scores["l2_percent"] == pytest.approx(2, abs=1e-12)
    assert scores["l2_hole_percent"] == pytest.approx(4, abs=1e-12)


def test_whole_l1_of_a_composite_is_hole_ratio_times_hole_l1():
    mask, image = (noise(16, 16) > 170).astype(np.uint8), noise(16, 16, 3)
    scores = score_pair(image, composite_uint8(noise(16, 16, 3, seed=2), image, mask), mask)
    assert scores["l1_percent"] == pytest.approx(mask.mean() * scores["l1_hole_percent"], rel=1e-12)


def test_equal_pictures_are_perfect_but_never_infinite():
    scores = score_pair(noise(16, 16, 3), noise(16, 16, 3), half_hole())
    tv = scores.pop("tv_percent")
    assert scores.pop("tv_true_percent") == tv
    assert scores.pop("ssim") == pytest.approx(1, abs=1e-12)
    assert scores.pop("psnr") == scores.pop("psnr_hole") == 100.0
    assert scores.pop("psnr_exact") == 1
    assert set(scores.values()) == {0.0}


def test_without_a_hole_the_hole_is_perfect():
    scores = score_pair(grey(0), grey(9), np.zeros((16, 16), np.uint8))
    assert (scores["l1_hole_percent"], scores["l2_hole_percent"], scores["psnr_hole"]) == (0.0, 0.0, 100.0)
    assert scores["psnr"] < 40


def test_psnr_is_averaged_over_images_not_pooled():
    # Differences of 25.5 and 2.55 would give 20 and 40 dB; 51 on a quarter of the pixels has the MSE of 25.5.
    quarter = np.zeros((20, 20), np.uint8)
    quarter[:10, :10] = 1
    twenty = score_pair(grey(0, 20, 20), composite_uint8(grey(51, 20, 20), grey(0, 20, 20), quarter), quarter)["psnr"]
    one_percent = np.zeros((20, 20), np.uint8)
    one_percent.ravel()[:1] = 1  # 1 of 400 pixels by 51: MSE 6.5025
    forty = score_pair(grey(0, 20, 20), composite_uint8(grey(51, 20, 20), grey(0, 20, 20), one_percent), one_percent)
    assert twenty == pytest.approx(20, abs=1e-12)
    assert forty["psnr"] == pytest.approx(40, abs=1e-12)
    assert np.mean([twenty, forty["psnr"]]) == pytest.approx(30, abs=1e-12)


def test_total_variation_of_stripes():
    stripes = np.zeros((6, 5, 3), np.uint8)
    stripes[:, 1::2] = 51  # every step to the right is 51, no step down
    assert tv_percent(stripes) == pytest.approx(20, abs=1e-12)
    assert tv_percent(stripes.transpose(1, 0, 2)) == pytest.approx(20, abs=1e-12)
    assert tv_percent(grey(7)) == 0


def test_mae_of_edge_connect_is_that_of_grey_values():
    x, y = noise(16, 16, 3), noise(16, 16, 3, seed=1)
    grey_x, grey_y = rgb2gray(x), rgb2gray(y)
    assert mae_ratio(x, y) == pytest.approx(np.abs(grey_x - grey_y).sum() / (grey_x + grey_y).sum(), rel=1e-12)
    assert mae_ratio(grey(0), grey(0)) == 0
    assert mae_ratio(grey(0), grey(9)) == 1
    assert mae_ratio(grey(1), grey(3)) == pytest.approx(0.5, rel=1e-12)
