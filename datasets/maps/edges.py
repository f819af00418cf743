"""Edge maps of images: Canny's detector as scikit-image has it, on grey values in [0, 1], to the pixel and faster.

Canny, "A Computational Approach to Edge Detection", PAMI 1986. The steps, and the order in which they add up, are those
of `skimage.feature.canny`; what is saved is the smoothing of a mask without holes, which is the same for every image,
gradients and connected pixels by slower means, and fresh memory for every step.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Private, and the only compiled form there is; tests hold the result against the public function.
from skimage.feature._canny_cy import _nonmaximum_suppression_bilinear

from files.colours import GREY_WEIGHTS

_UNIT = np.arange(256) * (1 / 255)
_GREY_WEIGHTS = np.array(GREY_WEIGHTS)
_GREY_ROWS = 32  # at a time, so that their three channels stay in the cache
_KEPT_PIXELS = 2**20  # at 32 bytes each; what a larger image is worked out in is not kept for the next one


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


def grey(image: NDArray[np.uint8], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """0.2125 R + 0.7154 G + 0.0721 B, rounded as `skimage.color.rgb2gray` does. image: uint8 (H, W, 3), RGB.

    Returns (H, W) in [0, 1], in `out` if that is given.
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
    """Edges of the image, or of its visible part. image: uint8 (H, W, 3). Returns uint8 (H, W), 0 or 1.

    valid: bool (H, W), False in the hole. Smoothing then averages visible pixels alone, so that neither the hole's rim
        makes an edge nor a hidden pixel has any influence; the hole and the ring of pixels around it have no edges.
    The outermost ring of the image never has edges.
    """
    if valid is not None and (valid.dtype != np.bool_ or valid.shape != image.shape[:2]):
        raise ValueError(f"valid must be bool {image.shape[:2]}, got {valid.dtype} {valid.shape}")
    room = _room(image.shape[:2])
    inner = _smooth(image, config.sigma, valid, room)
    _gradients(room)
    magnitude = np.square(room.down, out=room.magnitude)
    magnitude += np.square(room.right, out=room.smoothed)
    np.sqrt(magnitude, out=magnitude)
    thin = _nonmaximum_suppression_bilinear(room.down, room.right, magnitude, inner, config.low_threshold)
    weak = thin > 0
    count, labels = cv2.connectedComponents(weak.view(np.uint8), connectivity=8)
    places = np.flatnonzero(weak)  # few, and of a bool array found at once
    labels = labels.ravel()[places]
    has_strong = np.zeros(count, np.uint8)
    has_strong[labels[thin.ravel()[places] >= config.high_threshold]] = 1
    edges = weak.view(np.uint8)
    edges.ravel()[places] = has_strong[labels]
    return edges


class _Room:
    """The arrays in between, for images of one size; each is written whole before it is read.

    The next image of that size finds them where they were. Handed back to the system and asked for anew, their pages
    would cost as much as all the work on an image of 256 x 256.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = self.shape = shape
        # Rows lie a cache line further apart: at a power of two all of a column would share a few places of the cache.
        self.smoothed = np.empty((height, width + 8))[:, :width]
        self.padded = np.empty((height + 2, width + 2))
        self.difference = np.empty((height, width + 2))
        self.down = np.empty(shape)
        # In the place of what is no longer needed by then.
        self.right = self.difference.reshape(-1)[: height * width].reshape(shape)
        self.magnitude = self.padded.reshape(-1)[: height * width].reshape(shape)


_kept = threading.local()


def _room(shape: tuple[int, int]) -> _Room:
    """This thread's."""
    room = getattr(_kept, "room", None)
    if room is None or room.shape != shape:
        room = _Room(shape)
        _kept.room = room if prod(shape) <= _KEPT_PIXELS else None
    return room


def _smooth(image: NDArray[np.uint8], sigma: float, valid: NDArray[np.bool_] | None, room: _Room) -> NDArray[np.bool_]:
    """Leave in the room the mean of the visible pixels around each one; returns which pixels may be edges."""
    smoothed = grey(image, out=room.smoothed)
    if valid is None:
        weights, inner = _whole_image(image.shape[:2], sigma)
    else:
        weights, inner = _weights(valid, sigma), ndimage.binary_erosion(valid, np.ones((3, 3), bool), border_value=0)
        smoothed[~valid] = 0
    _gaussian(smoothed, sigma)
    smoothed /= weights
    return inner


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
    weights = np.empty((valid.shape[0], valid.shape[1] + 8))[:, : valid.shape[1]]
    weights[:] = valid
    return _gaussian(weights, sigma) + np.finfo(np.float64).eps


def _gaussian(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth an array in place; beyond its border all is 0."""
    return ndimage.gaussian_filter(values, sigma, mode="constant", output=values)


def _gradients(room: _Room) -> None:
    """Leave in the room Sobel's derivatives downward and to the right; values at the border repeat outward.

    Differences first and sums second, and of these the outer two first, as scipy has it: another order would round
    differently and move edges. OpenCV's own filter has that order to the right, since it goes along rows first.
    """
    padded = cv2.copyMakeBorder(room.smoothed, 1, 1, 1, 1, cv2.BORDER_REPLICATE, dst=room.padded)
    difference = np.subtract(padded[2:], padded[:-2], out=room.difference)
    outer = np.add(difference[:, :-2], difference[:, 2:], out=room.down)
    cv2.scaleAdd(difference[:, 1:-1], 2, outer, dst=outer)
    cv2.Sobel(room.smoothed, cv2.CV_64F, 1, 0, dst=room.right, borderType=cv2.BORDER_REPLICATE)
