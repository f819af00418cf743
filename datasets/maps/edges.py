"""Compute edge maps of images: Canny's detector, equal to scikit-image's in every pixel, and faster.

Canny, "A Computational Approach to Edge Detection", PAMI 1986. The steps, and the order of their additions, are those
of `skimage.feature.canny` on grey values in [0, 1]. It is faster in three ways: the smoothed mask of an image without
holes is computed once per size; OpenCV computes the gradients and the connected pixels; all steps reuse memory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import cv2
import numpy as np
from numpy.typing import NDArray

from files.colours import GREY_WEIGHTS

_UNIT = np.arange(256) * (1 / 255)
_GREY_WEIGHTS = np.array(GREY_WEIGHTS)
_GREY_ROWS = 32  # converted at a time, so that their three channels stay in the processor's cache
_MAX_KEPT_PIXELS = 2**20  # 32 bytes each; the buffers of a larger image are not kept for the next image


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """Parameters of the edge detector. The defaults are EdgeConnect's and scikit-image's.

    sigma: standard deviation, in pixels, of the Gaussian that smooths the image first.
    low_threshold, high_threshold: magnitudes of the gradient of grey values in [0, 1]. A pixel between them is an edge
        only if it is connected to a pixel above high_threshold.
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


def grey(image: NDArray[np.uint8], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Convert to grey, 0.2125 R + 0.7154 G + 0.0721 B, rounded as `skimage.color.rgb2gray` does.

    image: uint8 (H, W, 3), RGB.
    out: array (H, W) for the result; None allocates one.
    Returns (H, W) in [0, 1]. Raises ValueError for another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    out = np.empty(image.shape[:2]) if out is None else out
    for top in range(0, len(image), _GREY_ROWS):
        rows = slice(top, top + _GREY_ROWS)
        np.matmul(cv2.LUT(image[rows], _UNIT), _GREY_WEIGHTS, out=out[rows])
    return out


def canny_edges(
    image: NDArray[np.uint8], config: EdgeConfig, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Detect the edges of an image, or of its visible part.

    image: uint8 (H, W, 3), RGB.
    valid: bool (H, W), False in the hole. The smoothing then averages visible pixels only. So the rim of the hole makes
        no edge and a hidden pixel has no influence. The hole and the pixels next to it have no edges.
    Returns uint8 (H, W), 0 or 1. The outermost ring of the image never has edges.
    Raises ValueError for another type or shape.
    """
    if valid is not None and (valid.dtype != np.bool_ or valid.shape != image.shape[:2]):
        raise ValueError(f"valid must be bool {image.shape[:2]}, got {valid.dtype} {valid.shape}")
    # Imported late, since importing scikit-image takes longer than most commands. Private, but scikit-image offers this
    # loop in no other compiled form. Tests compare with its public function.
    from skimage.feature._canny_cy import _nonmaximum_suppression_bilinear

    buffers = _buffers(image.shape[:2])
    may_be_edge = _smooth(image, config.sigma, valid, buffers)
    _gradients(buffers)
    magnitude = np.square(buffers.down, out=buffers.magnitude)
    magnitude += np.square(buffers.right, out=buffers.smoothed)
    np.sqrt(magnitude, out=magnitude)
    thin = _nonmaximum_suppression_bilinear(buffers.down, buffers.right, magnitude, may_be_edge, config.low_threshold)
    return _join_weak_to_strong(thin, config.high_threshold)


def _join_weak_to_strong(thin: NDArray[np.float64], high_threshold: float) -> NDArray[np.uint8]:
    """Keep the connected sets of pixels that contain a strong one.

    thin: magnitudes (H, W), 0 where there is no weak edge.
    Returns uint8 (H, W), 0 or 1.
    """
    weak = thin > 0
    count, labels = cv2.connectedComponents(weak.view(np.uint8), connectivity=8)
    indices = np.flatnonzero(weak)  # few, and fast to find in a bool array
    labels = labels.ravel()[indices]
    has_strong = np.zeros(count, np.uint8)
    has_strong[labels[thin.ravel()[indices] >= high_threshold]] = 1
    edges = weak.view(np.uint8)
    edges.ravel()[indices] = has_strong[labels]
    return edges


class _Buffers:
    """The intermediate arrays for images of one size. Each is written completely before it is read.

    They are four blocks of memory. `right` reuses the block of `difference`, and `magnitude` that of `padded`:

        step                   block 1    block 2    block 3      block 4
        1 grey and smooth      smoothed
        2 pad                  smoothed   padded
        3 subtract rows        smoothed   padded     difference
        4 add columns          smoothed              difference   down
        5 Sobel to the right   smoothed              right        down
        6 magnitude            right^2    magnitude  right        down

    Then edges are thinned, from down, right and magnitude.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = self.shape = shape
        # Rows are one cache line further apart: at a power of two a column would use only a few sets of the cache.
        self.smoothed = np.empty((height, width + 8))[:, :width]
        self.padded = np.empty((height + 2, width + 2))
        self.difference = np.empty((height, width + 2))
        self.down = np.empty(shape)
        self.right = self.difference.reshape(-1)[: height * width].reshape(shape)
        self.magnitude = self.padded.reshape(-1)[: height * width].reshape(shape)


# The one global state here: each thread keeps its buffers between images. If they were freed and allocated again, the
# system would map fresh pages, which costs as much as all the work on an image of 256 x 256.
_thread = threading.local()


def _buffers(shape: tuple[int, int]) -> _Buffers:
    """Return this thread's buffers for images of height and width `shape`."""
    buffers = getattr(_thread, "buffers", None)
    if buffers is None or buffers.shape != shape:
        buffers = _Buffers(shape)
        _thread.buffers = buffers if prod(shape) <= _MAX_KEPT_PIXELS else None
    return buffers


def _smooth(
    image: NDArray[np.uint8], sigma: float, valid: NDArray[np.bool_] | None, buffers: _Buffers
) -> NDArray[np.bool_]:
    """Write the mean of the visible pixels around each pixel to buffers.smoothed.

    Returns bool (H, W): the pixels that may be edges.
    """
    smoothed = grey(image, out=buffers.smoothed)
    if valid is None:
        weights, may_be_edge = _whole_image(image.shape[:2], sigma)
    else:
        weights = _weights(valid, sigma)
        from scipy.ndimage import binary_erosion

        may_be_edge = binary_erosion(valid, np.ones((3, 3), bool), border_value=0)
        smoothed[~valid] = 0
    _gaussian(smoothed, sigma)
    smoothed /= weights
    return may_be_edge


@lru_cache(maxsize=8)
def _whole_image(shape: tuple[int, int], sigma: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the weights and the pixels that may be edges, of any image without a hole. Do not write to them."""
    may_be_edge = np.zeros(shape, bool)
    may_be_edge[1:-1, 1:-1] = True
    weights = _weights(np.ones(shape, bool), sigma)
    weights.flags.writeable = False
    return weights, may_be_edge


def _weights(valid: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    """Return the visible share (H, W) of the Gaussian around each pixel; never 0."""
    weights = np.empty((valid.shape[0], valid.shape[1] + 8))[:, : valid.shape[1]]
    weights[:] = valid
    return _gaussian(weights, sigma) + np.finfo(np.float64).eps


def _gaussian(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth an array in place. Values outside it count as 0."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, sigma, mode="constant", output=values)


def _gradients(buffers: _Buffers) -> None:
    """Write Sobel's derivatives of buffers.smoothed to buffers.down and buffers.right; border values repeat outward.

    As in scipy, differences come before sums, and of a sum's three terms the outer two come first. Another order would
    round differently and move edges. OpenCV's Sobel has this order to the right only, because it filters rows first.
    """
    padded = cv2.copyMakeBorder(buffers.smoothed, 1, 1, 1, 1, cv2.BORDER_REPLICATE, dst=buffers.padded)
    difference = np.subtract(padded[2:], padded[:-2], out=buffers.difference)
    outer = np.add(difference[:, :-2], difference[:, 2:], out=buffers.down)
    cv2.scaleAdd(difference[:, 1:-1], 2, outer, dst=outer)
    cv2.Sobel(buffers.smoothed, cv2.CV_64F, 1, 0, dst=buffers.right, borderType=cv2.BORDER_REPLICATE)
