"""Edge maps of images: Canny's detector as scikit-image has it, on grey values in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.feature import canny


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
    """0.2125 R + 0.7154 G + 0.0721 B. image: uint8 (H, W, 3), RGB. Returns (H, W) in [0, 1]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return rgb2gray(image)


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
    edges = canny(
        grey(image),
        sigma=config.sigma,
        low_threshold=config.low_threshold,
        high_threshold=config.high_threshold,
        mask=valid,
    )
    return edges.astype(np.uint8)
