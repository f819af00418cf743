"""Classical methods that fill a hole without a network. Trained generators are compared with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

from files.errors import UserError

MID_GREY = 128
"""Level of every filled pixel of an image without visible pixels."""

FillOne = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""fill(image, mask): uint8 (H, W, 3) and (H, W), 1 = hole -> uint8 (H, W, 3)."""

_SMALLEST_SIDE = 16
"""Smaller images have no two windows of PatchMatch, hence no patch to copy."""


class BaselineError(UserError):
    """A baseline cannot be computed here; the message says what it needs."""


@dataclass(frozen=True)
class Baseline:
    """One classical method.

    fill(image, mask): fills the hole, keeps the valid pixels, and does not depend on the hidden ones.
        image: uint8 (H, W, 3), RGB; mask: uint8 (H, W), 1 = hole; returns uint8 (H, W, 3).
    description: one line for a table.
    paper, year: where the method was published, if it was.
    """

    fill: FillOne
    description: str
    paper: str = ""
    year: int | None = None


def mean_colour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole with each channel's mean over the visible pixels, rounded half up."""
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
    """Continue the visible pixels as the smoothest surface: solve the biharmonic equation in every hole.

    Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions", 2018; scikit-image's.
    """
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all() or not hole.any():
        return blank
    filled = inpaint_biharmonic(blank / 255, hole, channel_axis=-1, split_into_regions=True)
    return np.where(hole[..., None], np.floor(filled * 255 + 0.5).clip(0, 255).astype(np.uint8), image)


def patch_match(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Copy visible 7x7 patches, found by random search and propagation, from coarse to fine.

    Barnes et al., "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing", 2009; PyPatchMatch,
    radius 3. Papers that print a row "PatchMatch" used other programs.
    Raises BaselineError if the package is not installed.
    """
    try:
        import patchmatch  # an optional extra
    except ImportError as error:
        raise BaselineError(
            "the baseline patch_match needs the package PyPatchMatch: install the extra `classical`, or remove "
            "patch_match from evaluate.baselines"
        ) from error
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all() or not hole.any() or min(hole.shape) < _SMALLEST_SIDE:
        return blank
    patchmatch.set_random_seed(0)
    filled = patchmatch.inpaint(blank, hole.astype(np.uint8), patch_size=3)  # the package's size is a radius
    return np.where(hole[..., None], filled, image)


def _inpaint(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    # OpenCV fills each channel separately, so RGB need not become BGR. Its Telea mixes a little of the hole's old
    # content into the result. The hole is set to the mean colour first, so that no hidden pixel influences the result.
    blank, hole = mean_colour(image, mask), mask == 1
    if hole.all():
        return blank
    filled = cv2.inpaint(blank, hole.astype(np.uint8), inpaintRadius=3, flags=method)
    return np.where(hole[..., None], filled, image)


def _is_hole(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mask as bool after checking shapes and types of image and mask."""
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

SLOW = frozenset({"biharmonic", "patch_match"})
"""Baselines whose time grows faster than the hole. They have a time limit."""
