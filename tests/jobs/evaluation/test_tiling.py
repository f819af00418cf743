"""A picture in tiles is filled as the whole one is, as far as the receptive field of a generator allows."""

import cv2
import numpy as np
import pytest

from benchmarks.photographs import photograph
from jobs.evaluation.tiling import Tiling, fill_in_tiles, measure_field, plan_tiles

RADIUS = 20
IMAGE = np.tile(photograph(3, 256), (3, 4, 1))[:700, :930]
MASK = np.zeros(IMAGE.shape[:2], np.uint8)
MASK[30:600, 100:700] = 1
MASK[650:, 5:9] = 1


def blur(image, mask, sketch):
    """A generator with a known field: the mean of the visible pixels within RADIUS, plus the sketch."""
    side = 2 * RADIUS + 1
    visible = (image * (1 - mask[..., None])).astype(np.float32)
    mean = cv2.boxFilter(visible, -1, (side, side), normalize=True, borderType=cv2.BORDER_CONSTANT)
    lines = 0 if sketch is None else 100 * sketch[..., None]
    return np.clip(np.round(mean) + lines, 0, 255).astype(np.uint8)


def brightness(image, mask, sketch):
    """A generator that sees the whole picture: the mean of all visible pixels, grey if there are none."""
    if mask.all():
        return np.full_like(image, 128)
    return np.broadcast_to(image[mask == 0].mean(axis=0).astype(np.uint8), image.shape)


def test_the_field_of_a_generator_is_measured():
    assert RADIUS - 2 <= measure_field(blur) <= RADIUS
    assert measure_field(brightness) is None
    assert measure_field(lambda image, mask, sketch: np.zeros_like(image[..., :3])) == 0


def test_tiles_with_margins_of_the_field_give_the_result_of_the_whole_picture():
    tiling = plan_tiles(320 * 320, RADIUS)
    assert tiling == Tiling(320, RADIUS)
    sketch = (np.arange(930) % 7 == 0).astype(np.uint8) * np.ones_like(MASK)
    seen = []
    filled = fill_in_tiles(blur, IMAGE, MASK, sketch, tiling, lambda done, total: seen.append((done, total)))
    whole = np.where(MASK[..., None] == 1, blur(IMAGE, MASK, sketch), IMAGE)
    assert np.array_equal(filled, whole)
    assert seen[-1][0] == seen[-1][1] == len(seen) - 1 > 4


def test_every_hole_pixel_is_filled_and_tiles_of_other_brightness_blend_without_a_step():
    filled = fill_in_tiles(brightness, IMAGE, MASK, None, plan_tiles(256 * 256, None))
    assert np.array_equal(filled[MASK == 0], IMAGE[MASK == 0])
    inside = filled[40:590, 110:690].astype(int)
    assert max(np.abs(np.diff(inside, axis=axis)).max() for axis in (0, 1)) <= 8
    assert np.ptp(inside) > 8  # tiles do differ


@pytest.mark.parametrize("size", [(256, 256), (257, 300), (1000, 64), (511, 900)])
@pytest.mark.parametrize("field", [0, 20, None])
def test_no_size_leaves_a_pixel_out_or_makes_a_tile_too_small(size, field):
    mask, sides = np.ones(size, np.uint8), []

    def fill(image, mask, sketch):
        sides.append(mask.shape)
        return np.full_like(image, 200)

    filled = fill_in_tiles(fill, np.zeros((*size, 3), np.uint8), mask, None, plan_tiles(256 * 256, field))
    assert (filled == 200).all()
    assert min(min(side) for side in sides) >= min(48, *size)
