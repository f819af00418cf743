"""Structural similarity of two pictures, at one scale and at five.

Pictures are uint8 RGB arrays (H, W, 3). All sums are float64: in float32 the differences of squares lose four digits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import correlate1d

from files.errors import UserError

_RADIUS = 5
_WINDOW = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
_WINDOW /= _WINDOW.sum()

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

MS_SSIM_MIN_SIDE = len(_WINDOW) * 2 ** (len(_SCALE_WEIGHTS) - 1)
"""Pixels of the shorter side below which the window does not fit in the coarsest scale."""


class TrueImage:
    """A true image (H, W, 3), with what all comparisons with it share. Its scales are computed when they are needed."""

    def __init__(self, image8: np.ndarray) -> None:
        self.image8 = image8
        self._scales: list[_Scale] = []

    def scale(self, number: int) -> _Scale:
        """Return the image at a scale, 0 = its own; each is half the one before."""
        if number == len(self._scales):
            x = _halve(self._scales[-1].x) if self._scales else self.image8.astype(np.float64)
            mean = _window_mean(x)
            self._scales.append(_Scale(x, mean, _window_mean(x * x) - mean**2))
        return self._scales[number]


class _Scale(NamedTuple):
    """An image at one scale: its values, and their windows' means and variances."""

    x: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def ssim(image8: np.ndarray, composite8: np.ndarray) -> float:
    """Compute the structural similarity of two pictures (H, W, 3).

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13, as MATLAB
    computes it: Gaussian window 11 x 11, sigma 1.5, no padding, L = 255, K1 = 0.01, K2 = 0.03.
    Returns the mean over the map and R, G, B, at most 1, in float64.
    Raises UserError for a picture smaller than the window.
    """
    return similarities(TrueImage(image8), composite8)[0]


def ms_ssim(image8: np.ndarray, composite8: np.ndarray) -> float | None:
    """Compute the structural similarity of two pictures (H, W, 3) over five scales.

    Wang et al., "Multi-Scale Structural Similarity for Image Quality Assessment", 2003, Eq. 7, with the window and
    constants of `ssim` and the paper's five weights. Each scale is the mean of 2 x 2 pixels of the one before; an odd
    last row or column is left out. A negative mean contrast counts as 0, since its power is not defined.
    Returns the mean over R, G, B, in [0, 1], in float64; None for a side below MS_SSIM_MIN_SIDE.
    """
    return similarities(TrueImage(image8), composite8)[1]


def similarities(truth: TrueImage, composite8: np.ndarray) -> tuple[float, float | None]:
    """Compute `ssim` and `ms_ssim` together, for the maps of the first scale are the same."""
    sides = truth.image8.shape[:2]
    if min(sides) < len(_WINDOW):
        raise UserError(f"SSIM needs at least {len(_WINDOW)} x {len(_WINDOW)} pixels, got {truth.image8.shape}")
    y = composite8.astype(np.float64)
    whole, contrast = _maps(truth.scale(0), y)
    similarity = float(whole.mean())
    if min(sides) < MS_SSIM_MIN_SIDE:
        return similarity, None
    product = np.ones(3)
    for number, weight in enumerate(_SCALE_WEIGHTS[:-1], start=1):
        product *= _channel_means(contrast) ** weight
        y = _halve(y)
        whole, contrast = _maps(truth.scale(number), y)
    return similarity, float((product * _channel_means(whole) ** _SCALE_WEIGHTS[-1]).mean())


def _maps(truth: _Scale, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the map of SSIM and its factor of contrast and structure, (H - 10, W - 10, C) each."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_x, (mu_y, y_y, x_y) = truth.mean, (_window_mean(z) for z in (y, y * y, truth.x * y))
    variances = truth.variance + (y_y - mu_y**2)
    covariance = x_y - mu_x * mu_y
    numerator = (2 * mu_x * mu_y + c1) * (2 * covariance + c2)
    return numerator / ((mu_x**2 + mu_y**2 + c1) * (variances + c2)), (2 * covariance + c2) / (variances + c2)


def _channel_means(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=(0, 1)).clip(0)


def _halve(x: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 pixels: (H, W, C) -> (H // 2, W // 2, C)."""
    height, width = (side // 2 * 2 for side in x.shape[:2])
    x = x[:height, :width]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def _window_mean(x: np.ndarray) -> np.ndarray:
    """Return the window's weighted mean at every place where the window fits: (H, W, C) -> (H - 10, W - 10, C)."""
    inner = slice(_RADIUS, -_RADIUS)
    columns = correlate1d(x, _WINDOW, axis=0)[inner]  # the window is separable, so two passes suffice
    return correlate1d(columns, _WINDOW, axis=1)[:, inner]
