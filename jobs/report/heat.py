"""Error heat maps: the colour of each pixel tells how far a result is from the truth."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_LEVELS = 32  # few colours make small files
BRIGHTEST = 64
"""The mean absolute error of the three colours, in [0, 255], from which on a pixel has the brightest colour."""


def encode_errors(picture: np.ndarray, truth: np.ndarray) -> bytes:
    """Draw the absolute error of every pixel as a PNG: black where it is 0, then purple, orange and light yellow.

    picture, truth: uint8 (H, W, 3).
    """
    errors = np.abs(picture.astype(np.int16) - truth).mean(axis=2)
    levels = np.minimum(np.ceil(errors * (_LEVELS - 1) / BRIGHTEST), _LEVELS - 1).astype(np.uint8)
    image = Image.fromarray(levels, "P")
    image.putpalette(_palette())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _palette() -> bytes:
    from matplotlib import colormaps  # takes a while to import

    return (colormaps["inferno"](np.linspace(0, 1, _LEVELS))[:, :3] * 255).round().astype(np.uint8).tobytes()
