"""SSIM and MS-SSIM against scikit-image, slow loops and values worked out by hand."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from skimage import data
from skimage.metrics import structural_similarity

from jobs.evaluation.metrics.structure import MS_SSIM_MIN_SIDE, ms_ssim, ssim
from tests.jobs.evaluation.metrics.pictures import noise


def grey(level, height=16, width=16):
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (11, 40), (64, 48)])
def test_ssim_equals_scikit_image_on_noise(height, width):
    x, y = noise(height, width, 3), noise(height, width, 3, seed=1)
    assert ssim(x, y) == pytest.approx(reference_ssim(x, y), abs=1e-7)


def test_ssim_equals_scikit_image_on_a_photograph_with_a_blurred_hole():
    photo = data.astronaut()[:256, 128:384]
    blurred = photo.copy()
    blurred[64:192, 64:192] = scipy.ndimage.gaussian_filter(photo[64:192, 64:192], (3, 3, 0))
    assert ssim(photo, blurred) == pytest.approx(reference_ssim(photo, blurred), abs=1e-7)
    assert 0.5 < ssim(photo, blurred) < 0.99


def reference_ssim(x, y):
    arguments = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(x, y, data_range=255, channel_axis=-1, **arguments)


def test_ssim_of_constants_is_the_luminance_term():
    a, b, c1 = 100, 150, 6.5025
    assert ssim(grey(a), grey(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-12)


def test_ssim_refuses_what_the_window_does_not_fit_in():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(grey(0, 10, 30), grey(0, 10, 30))


def reference_ms_ssim(x, y):
    """Wang's Eq. 7 with a convolution in two dimensions, channel by channel."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z):
        return scipy.signal.convolve2d(z, window, mode="valid")

    results = []
    for channel in range(3):
        a, b = x[..., channel].astype(float), y[..., channel].astype(float)
        result = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            if scale:
                a, b = (scipy.signal.convolve2d(z, np.full((2, 2), 0.25), mode="valid")[::2, ::2] for z in (a, b))
            mu_a, mu_b = mean(a), mean(b)
            var_a, var_b, cov = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
            contrast = (2 * cov + 58.5225) / (var_a + var_b + 58.5225)
            luminance = (2 * mu_a * mu_b + 6.5025) / (mu_a**2 + mu_b**2 + 6.5025)
            result *= max(float((contrast * luminance if scale == 4 else contrast).mean()), 0) ** weight
        results.append(result)
    return np.mean(results)


def test_ms_ssim_equals_a_slow_computation_on_photographs_of_odd_sizes_and_on_noise():
    photo = data.astronaut()[:177, 100:299]
    blurred = photo.copy()
    blurred[40:140, 40:140] = scipy.ndimage.gaussian_filter(photo[40:140, 40:140], (3, 3, 0))
    for x, y in ((photo, blurred), (noise(176, 190, 3), noise(176, 190, 3, seed=1)), (photo, 255 - photo)):
        assert ms_ssim(x, y) == pytest.approx(reference_ms_ssim(x, y), rel=1e-9, abs=1e-12)
    assert 0.5 < ms_ssim(photo, blurred) < 0.999


def test_ms_ssim_of_equal_and_of_flat_pictures():
    side = MS_SSIM_MIN_SIDE
    photo = data.astronaut()[:side, :side]
    assert ms_ssim(photo, photo) == pytest.approx(1, abs=1e-12)
    a, b, c1 = 100, 150, 6.5025
    expected = ((2 * a * b + c1) / (a * a + b * b + c1)) ** 0.1333  # only luminance differs, at the coarsest scale
    assert ms_ssim(grey(a, side, side), grey(b, side, side)) == pytest.approx(expected, abs=1e-12)


def test_a_picture_that_is_too_small_for_five_scales_has_no_ms_ssim():
    assert MS_SSIM_MIN_SIDE == 176
    assert ms_ssim(grey(0, 175, 300), grey(0, 175, 300)) is None
