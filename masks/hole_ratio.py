"""Measure the hole ratio of a mask, the share of hole pixels, and name its bin among the six published ones."""

import numpy as np

# Evaluation protocol, "Hole-ratio buckets": left-open, right-closed. Literals, not k * 0.1: a ratio is one correctly
# rounded division of two integers, hence equal to the literal exactly when the true ratio is (3 * 0.1 is not 0.3).
BINS: tuple[tuple[str, float, float], ...] = (
    ("0.01-0.1", 0.01, 0.1),
    ("0.1-0.2", 0.1, 0.2),
    ("0.2-0.3", 0.2, 0.3),
    ("0.3-0.4", 0.3, 0.4),
    ("0.4-0.5", 0.4, 0.5),
    ("0.5-0.6", 0.5, 0.6),
)
OTHER = "other"


def hole_ratio(mask: np.ndarray) -> float:
    """Return hole pixels / all pixels, in [0, 1].

    mask: (H, W), any real type, exactly 0 or 1, 1 = hole; after resize and binarisation, at evaluation size.
    Raises ValueError for another shape, no pixels or other values.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(
            f"mask must be (H, W) with at least one pixel, got shape {mask.shape}; pass one mask at a time"
        )
    num_holes = int(np.count_nonzero(mask))
    if np.count_nonzero(mask == 1) != num_holes:
        raise ValueError(
            f"mask must hold only 0 and 1 (1 = hole), got {mask.dtype} in [{mask.min()}, {mask.max()}]; "
            "binarise it first, 8-bit masks by mask >= 128"
        )
    return num_holes / mask.size


def bin_name(ratio: float) -> str:
    """Return the name of the bin that contains the ratio, or "other" if ratio <= 0.01 or ratio > 0.6.

    Raises ValueError for a ratio outside [0, 1] or not a number.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}; pass the result of hole_ratio(mask)")
    return next((name for name, low, high in BINS if low < ratio <= high), OTHER)


def member_of_bin(column: str, name: str) -> str:
    """Return the member of a record for a bin: ("mask", "0.1-0.2") -> "mask-0p1-0p2.png". A dot would end the key."""
    return f"{column}-{name.replace('.', 'p')}.png"
