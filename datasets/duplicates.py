"""Find near duplicates between two splits by the difference hashes of their pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from files.errors import UserError

MAX_DISTANCE = 15
_BLOCK = 2**22  # pairs compared at once: 32 MB


def near_pairs(
    left: NDArray[np.uint64], right: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """Find all pairs of one hash of each side that differ in at most `max_distance` of 64 bits.

    The bits are divided into max_distance + 1 groups. A near pair is equal in at least one of them (Norouzi et al.,
    "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012). Only hashes with an equal group are compared.

    left, right: hashes (N,) and (M,).
    Yields blocks of indices in `left`, indices in `right` and distances, each pair once.
    Raises UserError for a distance outside 0..MAX_DISTANCE.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UserError(f"distance must be in 0..{MAX_DISTANCE}, got {max_distance}")
    masks = _bit_groups(max_distance + 1)
    for number, mask in enumerate(masks):
        for lefts, rights in _equal_values(left & mask, right & mask):
            num_rows = max(1, _BLOCK // len(rights))
            for start in range(0, len(lefts), num_rows):
                block = lefts[start : start + num_rows]
                differing = left[block][:, None] ^ right[rights][None]
                distances = np.bitwise_count(differing)
                is_near = distances <= max_distance
                for earlier in masks[:number]:  # a pair with an equal earlier group was found there
                    is_near &= (differing & earlier) != 0
                rows, columns = np.nonzero(is_near)
                if len(rows):
                    yield block[rows], rights[columns], distances[rows, columns]


def _bit_groups(count: int) -> list[np.uint64]:
    """Return the masks of `count` consecutive groups that together are all 64 bits."""
    limits = [64 * number // count for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in itertools.pairwise(limits)]


def _equal_values(
    left: NDArray[np.uint64], right: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, for each value that is on both sides, its indices in `left` and its indices in `right`."""
    left_order, right_order = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    left_sorted, right_sorted = left[left_order], right[right_order]
    values = np.intersect1d(left_sorted, right_sorted)
    left_limits = np.searchsorted(left_sorted, values), np.searchsorted(left_sorted, values, side="right")
    right_limits = np.searchsorted(right_sorted, values), np.searchsorted(right_sorted, values, side="right")
    for left_low, left_high, right_low, right_high in zip(*left_limits, *right_limits, strict=True):
        yield left_order[left_low:left_high], right_order[right_low:right_high]
