"""Draw rectangular holes: the square in the centre, and the random box that DeepFill trains with.

Lengths are the papers', in pixels of an image whose short side is 256. `scale` multiplies them. A scale of
min(height, width) / 256 keeps the hole's share of a square image.
"""

import numpy as np


def centre_rectangle(height: int, width: int, *, side: int = 128, scale: float = 1.0) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole: a square of side * scale pixels (floored) in the centre.

    The default covers a quarter of a 256x256 image. Pathak et al., "Context Encoders", CVPR 2016, central region.
    """
    length = _scaled(side, scale)
    top, left = max(0, height - length) // 2, max(0, width - length) // 2
    return _fill(height, width, top, left, length, length)


def random_rectangle(
    rng: np.random.Generator, height: int, width: int, *, side: int = 128, max_shrink: int = 16, scale: float = 1.0
) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole: a box placed at random, then shrunk at random.

    Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, authors' code: top and left are
    uniform in [0, 256 - 128), then each pair of opposite sides moves inward by d, uniform in {0..16}.
    """
    length, shrink = _scaled(side, scale), int(max_shrink * scale)
    top = int(rng.integers(max(1, height - length)))
    left = int(rng.integers(max(1, width - length)))
    inset_y, inset_x = (int(inset) for inset in rng.integers(shrink + 1, size=2))
    return _fill(height, width, top + inset_y, left + inset_x, length - 2 * inset_y, length - 2 * inset_x)


def _scaled(side: int, scale: float) -> int:
    return max(1, int(side * scale))


def _fill(height: int, width: int, top: int, left: int, box_height: int, box_width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + box_height, left : left + box_width] = 1
    return mask
