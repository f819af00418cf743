"""Pictures that two splits share: near duplicates by their difference hashes, exact ones by their sources' digests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from files.errors import UserError

MAX_DISTANCE = 15
_BLOCK = 2**22  # pairs compared at once: 32 MB


def near_pairs(
    ours: NDArray[np.uint64], theirs: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
    """All pairs of 64-bit hashes, one of each side, that differ in at most `max_distance` bits; none is missed.

    Yields blocks of places in `ours`, places in `theirs` and distances, each pair once. Of max_distance + 1 groups of
    bits a near pair has at least one in common (Norouzi et al., "Fast Search in Hamming Space with Multi-Index
    Hashing", CVPR 2012), so that only hashes that share a group are compared.
    Raises ValueError for a distance outside 0..MAX_DISTANCE.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UserError(f"distance must lie in 0..{MAX_DISTANCE}, got {max_distance}")
    masks = _bit_groups(max_distance + 1)
    for number, mask in enumerate(masks):
        for left, right in _sharing(ours & mask, theirs & mask):
            for start in range(0, len(left), rows := max(1, _BLOCK // len(right))):
                block = left[start : start + rows]
                differing = ours[block][:, None] ^ theirs[right][None]
                distances = np.bitwise_count(differing)
                is_near = distances <= max_distance
                for earlier in masks[:number]:  # found there already
                    is_near &= (differing & earlier) != 0
                one, other = np.nonzero(is_near)
                if len(one):
                    yield block[one], right[other], distances[one, other]


def _bit_groups(count: int) -> list[np.uint64]:
    """Masks of `count` runs of bits that make up 64."""
    limits = [64 * number // count for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in itertools.pairwise(limits)]


def _sharing(
    ours: NDArray[np.uint64], theirs: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of each value that both sides have, on either side."""
    our_order, their_order = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    our_sorted, their_sorted = ours[our_order], theirs[their_order]
    values = np.intersect1d(our_sorted, their_sorted)
    our_limits = np.searchsorted(our_sorted, values), np.searchsorted(our_sorted, values, side="right")
    their_limits = np.searchsorted(their_sorted, values), np.searchsorted(their_sorted, values, side="right")
    for our_low, our_high, their_low, their_high in zip(*our_limits, *their_limits, strict=True):
        yield our_order[our_low:our_high], their_order[their_low:their_high]
