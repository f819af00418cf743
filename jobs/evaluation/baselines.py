"""Ways to fill a hole without a network, the rows that every trained generator has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

from files.errors import UserError

MID_GREY = 128
"""Fills an image of which nothing is visible."""


class BaselineError(UserError):
    """A baseline cannot be computed here; the message says what it needs."""


@dataclass(frozen=True)
class Baseline:
    """One classical row: fill(image, mask) keeps the valid pixels and never looks at the hidden ones.

    image: uint8 (H, W, 3), RGB; mask: uint8 (H, W), 1 = hole; returns uint8 (H, W, 3).
    description: one line for a table; paper and year: where it was published, if it was.
    """

    fill: Callable[[np.ndarray, np.ndarray], np.ndarray]
    description: str
    paper: str = ""
    year: int | None = None


def mean_colour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole with the mean, rounded half up, of each channel over the visible pixels."""
    hole = _is_hole(image, mask)
    filled = image.copy()
    filled[hole] = MID_GREY if hole.all() else np.floor(image[~hole].mean(axis=0) + 0.5)
    return filled


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill from the boundary inwards.

    Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004; OpenCV's, radius 3.
    """
    return _inpaint(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Continue the isophotes into the hole.

    Bertalmio et al., "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting", 2001; OpenCV's, radius 3.
    """
    return _inpaint(image, mask, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smoothest surface through the visible pixels: the biharmonic equation solved in every hole.

    Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions", 2018; scikit-image's.
    """
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all() or not hole.any():
        return blank
    filled = inpaint_biharmonic(blank / 255, hole, channel_axis=-1, split_into_regions=True)
    return np.where(hole[..., None], np.floor(filled * 255 + 0.5).clip(0, 255).astype(np.uint8), image)


def patch_match(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Copy 7x7 patches from what is visible, found by random search and propagation, from coarse to fine.

    Barnes et al., "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing", 2009; PyPatchMatch,
    radius 3, which is not the program behind any paper's row of that name. Raises BaselineError where the package is
    not installed.
    """
    try:
        import patchmatch  # an optional extra
    except ImportError as error:
        raise BaselineError(
            "the baseline patch_match needs the package PyPatchMatch: install the extra `classical`, or take "
            "patch_match out of evaluate.baselines"
        ) from error
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all() or not hole.any() or min(hole.shape) < _SMALLEST_SIDE:
        return blank
    patchmatch.set_random_seed(0)
    filled = patchmatch.inpaint(blank, hole.astype(np.uint8), patch_size=3)  # the package's size is a radius
    return np.where(hole[..., None], filled, image)


_SMALLEST_SIDE = 16
"""Below two windows of PatchMatch there is nothing to search."""


def _inpaint(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    # OpenCV fills each channel by itself, so RGB need not become BGR. Its Telea lets a little of what stands in the
    # hole into the result: the mean colour stands there, so that neither a hidden pixel nor black bleeds in.
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all():  # nothing to continue
        return blank
    filled = cv2.inpaint(blank, hole.astype(np.uint8), inpaintRadius=3, flags=method)
    return np.where(hole[..., None], filled, image)


def _is_hole(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask as bool, after a check of both shapes and types."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if mask.shape != image.shape[:2] or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"mask must be {image.shape[:2]} of 0 and 1 (1 = hole), got {mask.shape} in [{mask.min()}, {mask.max()}]"
        )
    return mask == 1


BASELINES: dict[str, Baseline] = {
    "mean_colour": Baseline(mean_colour, "the mean colour of the visible pixels"),
    "telea": Baseline(
        telea,
        "fast marching from the boundary inwards, radius 3",
        "An Image Inpainting Technique Based on the Fast Marching Method",
        2004,
    ),
    "navier_stokes": Baseline(
        navier_stokes,
        "isophotes continued into the hole, radius 3",
        "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting",
        2001,
    ),
    "biharmonic": Baseline(
        biharmonic,
        "the smoothest surface through the visible pixels",
        "On Surface Completion and Image Inpainting by Biharmonic Functions",
        2018,
    ),
    "patch_match": Baseline(
        patch_match,
        "visible 7x7 patches copied, PyPatchMatch",
        "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing",
        2009,
    ),
}
