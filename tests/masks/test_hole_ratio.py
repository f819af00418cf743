"""Hole ratios and bin edges, worked out by hand."""

import numpy as np
import pytest

from masks.hole_ratio import BINS, bin_name, hole_ratio


def _mask_of(num_holes: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(height * width, np.uint8)
    mask[:num_holes] = 1
    return mask.reshape(height, width)


def test_ratio_counts_pixels():
    assert hole_ratio(np.array([[1, 0, 0], [0, 0, 1]], np.uint8)) == 1 / 3
    assert hole_ratio(np.zeros((2, 2), np.uint8)) == 0
    assert hole_ratio(np.ones((2, 2), bool)) == 1
    assert type(hole_ratio(np.ones((2, 2), np.float32))) is float


@pytest.mark.parametrize(
    ("num_holes", "name"),
    [
        (0, "other"),
        (10, "other"),
        (11, "0.01-0.1"),
        (100, "0.01-0.1"),
        (101, "0.1-0.2"),
        (200, "0.1-0.2"),
        (201, "0.2-0.3"),
        (300, "0.2-0.3"),
        (301, "0.3-0.4"),
        (400, "0.3-0.4"),
        (401, "0.4-0.5"),
        (500, "0.4-0.5"),
        (501, "0.5-0.6"),
        (600, "0.5-0.6"),
        (601, "other"),
        (1000, "other"),
    ],
)
def test_bins_are_left_open_and_right_closed(num_holes: int, name: str):
    assert bin_name(hole_ratio(_mask_of(num_holes, 25, 40))) == name


@pytest.mark.parametrize("num_pixels", [100, 700, 65500, 348160 // 16 * 100])
def test_an_edge_stays_in_the_lower_bin_at_any_size(num_pixels: int):
    # Integers decide: holes / pixels is exactly the edge, and one pixel more is beyond it.
    for name, _, high in BINS:
        num_holes = num_pixels * round(100 * high) // 100
        assert bin_name(num_holes / num_pixels) == name
        assert bin_name((num_holes + 1) / num_pixels) != name


def test_bins_join_and_are_named_after_their_edges():
    assert [name for name, _, _ in BINS] == [f"{low}-{high}" for _, low, high in BINS]
    assert [high for _, _, high in BINS[:-1]] == [low for _, low, _ in BINS[1:]]


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[0, 255]], np.uint8),
        np.array([[0.0, 0.5]], np.float32),
        np.array([[0.0, np.nan]], np.float32),
        np.array([[0, -1]]),
    ],
)
def test_other_values_than_0_and_1_are_refused(mask: np.ndarray):
    with pytest.raises(ValueError, match="only 0 and 1"):
        hole_ratio(mask)


@pytest.mark.parametrize("shape", [(1, 4, 4), (4,), (0, 4)])
def test_other_shapes_than_one_mask_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"must be \(H, W\)"):
        hole_ratio(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio: float):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bin_name(ratio)
