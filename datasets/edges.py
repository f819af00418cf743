"""Edge maps of images: Canny's detector as scikit-image has it, on grey values in [0, 1], to the pixel and faster.

Canny, "A Computational Approach to Edge Detection", PAMI 1986. The steps, and the order in which they add up, are those
of `skimage.feature.canny`; what is saved is the smoothing of a mask without holes, which is the same for every image,
and gradients and connected pixels by slower means.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Private, and the only compiled form there is; tests hold the result against the public function.
from skimage.feature._canny_cy import _nonmaximum_suppression_bilinear

_UNIT = np.arange(256) * (1 / 255)
_GREY_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """How edges are found. The defaults are EdgeConnect's and scikit-image's.

    sigma: deviation of the Gaussian that smooths the image first, in pixels.
    low_threshold, high_threshold: magnitudes of the gradient between which an edge is kept only if it is joined to a
        stronger one, on grey values in [0, 1].
    """

    sigma: float = 2.0
    low_threshold: float = 0.1
    high_threshold: float = 0.2

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        if not 0 <= self.low_threshold <= self.high_threshold:
            thresholds = f"{self.low_threshold} and {self.high_threshold}"
            raise ValueError(f"thresholds must be 0 <= low_threshold <= high_threshold, got {thresholds}")


def grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """0.2125 R + 0.7154 G + 0.0721 B, rounded as `skimage.color.rgb2gray` does. image: uint8 (H, W, 3), RGB.

    Returns (H, W) in [0, 1].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return cv2.LUT(image, _UNIT) @ _GREY_WEIGHTS


def canny_edges(
    image: NDArray[np.uint8], config: EdgeConfig, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Edges of the image, or of its visible part. image: uint8 (H, W, 3). Returns uint8 (H, W), 0 or 1.

    valid: bool (H, W), False in the hole. Smoothing then averages visible pixels alone, so that neither the hole's rim
        makes an edge nor a hidden pixel has any influence; the hole and the ring of pixels around it have no edges.
    The outermost ring of the image never has edges.
    """
    if valid is not None and (valid.dtype != np.bool_ or valid.shape != image.shape[:2]):
        raise ValueError(f"valid must be bool {image.shape[:2]}, got {valid.dtype} {valid.shape}")
    smoothed, inner = _smooth(grey(image), config.sigma, valid)
    down, right = _gradients(smoothed)
    magnitude = np.square(down)
    magnitude += np.square(right, out=smoothed)  # nobody needs that any more
    np.sqrt(magnitude, out=magnitude)
    thin = _nonmaximum_suppression_bilinear(down, right, magnitude, inner, config.low_threshold)
    weak = thin > 0
    count, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    has_strong = np.zeros(count, np.uint8)
    has_strong[labels[weak & (thin >= config.high_threshold)]] = 1
    return np.take(has_strong, labels)


def _smooth(
    picture: NDArray[np.float64], sigma: float, valid: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean of the visible pixels around each one, and the pixels that may be edges."""
    if valid is None:
        weights, inner = _whole_image(picture.shape, sigma)
    else:
        weights, inner = _weights(valid, sigma), ndimage.binary_erosion(valid, np.ones((3, 3), bool), border_value=0)
        picture = np.where(valid, picture, 0.0)
    smoothed = _gaussian(picture, sigma)
    smoothed /= weights
    return smoothed, inner


@lru_cache(maxsize=8)
def _whole_image(shape: tuple[int, int], sigma: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What all images of one shape have in common; read-only."""
    inner = np.zeros(shape, bool)
    inner[1:-1, 1:-1] = True
    weights = _weights(np.ones(shape, bool), sigma)
    weights.flags.writeable = False
    return weights, inner


def _weights(valid: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    """How much of the Gaussian around each pixel is visible; never 0."""
    return _gaussian(valid.astype(np.float64), sigma) + np.finfo(np.float64).eps


def _gaussian(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    height, width = values.shape
    # Rows lie a cache line further apart: at a power of two all of a column would share a few places of the cache.
    smoothed = np.empty((height, width + 8))[:, :width]
    smoothed[:] = values
    return ndimage.gaussian_filter(smoothed, sigma, mode="constant", output=smoothed)


def _gradients(smoothed: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sobel's derivatives downward and to the right; values at the border repeat outward.

    Differences first and sums second, and of these the outer two first, as scipy has it: another order would round
    differently and move edges. OpenCV's own filter has that order to the right, since it goes along rows first.
    """
    padded = cv2.copyMakeBorder(smoothed, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    difference = padded[2:] - padded[:-2]
    outer = difference[:, :-2] + difference[:, 2:]
    down = cv2.scaleAdd(difference[:, 1:-1], 2, outer, dst=outer)
    return down, cv2.Sobel(smoothed, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE)
