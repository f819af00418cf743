"""The centre square and the random box of DeepFill."""

import numpy as np
import pytest

from masks.rectangles import centre_rectangle, random_rectangle


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height, width of the hole, which must be a full box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left, height, width = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert mask.sum() == height * width, "the hole is no box"
    return int(top), int(left), int(height), int(width)


def test_centre_square_covers_a_quarter():
    assert _box(centre_rectangle(256, 256)) == (64, 64, 128, 128)
    assert _box(centre_rectangle(128, 128, scale=0.5)) == (32, 32, 64, 64)


def test_centre_square_is_centred_in_an_oblong():
    assert _box(centre_rectangle(100, 201, side=11)) == (44, 95, 11, 11)


def test_random_box_takes_every_published_side_and_stays_in_its_place():
    rng = np.random.default_rng(0)
    boxes = np.array([_box(random_rectangle(rng, 256, 256)) for _ in range(2000)])
    sides = set(range(96, 129, 2))  # 128 - 2 * {0..16}
    assert set(boxes[:, 2]) == sides
    assert set(boxes[:, 3]) == sides
    insets = (128 - boxes[:, 2:]) // 2
    corners = boxes[:, :2] - insets  # of the box before it shrank: uniform in [0, 128)
    assert corners.min() == 0
    assert corners.max() == 127
    assert np.abs(corners.mean(axis=0) - 63.5).max() < 4
    assert len(np.unique(boxes[:, 2] - boxes[:, 3])) > 17, "height and width shrink independently"


@pytest.mark.parametrize(
    ("size", "sides"), [(128, range(48, 65, 2)), (64, range(24, 33, 2)), (512, range(192, 257, 2))]
)
def test_random_box_scales_with_the_image(size: int, sides: range):
    rng = np.random.default_rng(1)
    drawn = {_box(random_rectangle(rng, size, size, scale=size / 256))[2] for _ in range(600)}
    assert drawn == set(sides)


def test_random_box_reaches_all_of_an_oblong():
    rng = np.random.default_rng(2)
    reached = np.maximum.reduce([random_rectangle(rng, 64, 200, scale=64 / 256) for _ in range(500)])
    assert reached.shape == (64, 200)
    assert reached[:, 5:190].any(axis=0).all()
    assert reached[5:59].any(axis=1).all()


def test_masks_are_uint8_of_0_and_1():
    for mask in (
        centre_rectangle(32, 48, scale=0.125),
        random_rectangle(np.random.default_rng(3), 32, 48, scale=0.125),
    ):
        assert mask.dtype == np.uint8
        assert mask.shape == (32, 48)
        assert set(np.unique(mask)) == {0, 1}
