"""Read a mask that a user gives."""

from __future__ import annotations

from typing import Literal

import numpy as np

from files.pictures import RejectedImageError, decode_mask

GREY = (10, 245)  # exclusive: a value between is neither black nor white
MAX_GREY_SHARE = 0.01


def read_mask(content: bytes, *, hole: Literal["white", "black"] = "white", threshold: bool = False) -> np.ndarray:
    """Decode a PNG mask to uint8 (H, W), 0 or 1, 1 = hole. The only reader of masks that users give.

    content: the bytes of the file; see `decode_mask` for the accepted kinds of PNG.
    hole: the colour of the hole.
    threshold: split at grey level 128, for any share of grey pixels.
    Raises RejectedImageError for a file that is no mask, and, unless `threshold`, for one with more than 1 % of its
    pixels between black and white (grey levels 11 to 244).
    """
    picture = decode_mask(content)
    black, white = GREY
    grey_share = np.count_nonzero((picture > black) & (picture < white)) / picture.size
    if grey_share > MAX_GREY_SHARE and not threshold:
        raise RejectedImageError("not black and white")
    return ((picture >= 128) == (hole == "white")).astype(np.uint8)
