"""Brush strokes against a slow drawing by distances, and against the published constants."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from masks.strokes import _walk, draw_stroke, random_strokes


def _distances(height: int, width: int, vertices: list[tuple[int, int]]) -> np.ndarray:
    """Return each pixel's distance (H, W) from the polyline through vertices (x, y)."""
    ys, xs = np.mgrid[:height, :width]
    nearest = np.full((height, width), np.inf)
    for (x0, y0), (x1, y1) in pairwise(vertices):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((xs - x0) * dx + (ys - y0) * dy) / max(1, dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(xs - x0 - t * dx, ys - y0 - t * dy))
    return nearest


@pytest.mark.parametrize("brush_width", [1, 2, 5, 12, 13, 26, 39, 79])
def test_stroke_covers_what_lies_within_half_its_width(brush_width: int):
    vertices = [(20, 90), (70, 20), (71, 100), (150, 30), (160, 128)]
    mask = np.zeros((128, 160), np.uint8)
    draw_stroke(mask, vertices, brush_width)
    distances = _distances(128, 160, vertices)
    radius = brush_width // 2
    assert mask[distances <= radius - 0.5].all()
    assert not mask[distances > radius + 1].any()
    assert mask[90, 20] == 1


@pytest.mark.parametrize(("brush_width", "num_rows"), [(0, 1), (1, 1), (2, 3), (12, 13), (13, 13), (39, 39)])
def test_a_horizontal_stroke_is_as_high_as_its_discs(brush_width: int, num_rows: int):
    mask = np.zeros((64, 128), np.uint8)
    draw_stroke(mask, [(30, 32), (100, 32)], brush_width)
    assert mask[:, 64].sum() == num_rows


def test_walks_follow_the_published_constants():
    rng = np.random.default_rng(0)
    radius = math.hypot(2000, 1000) / 8
    num_vertices, angles, lengths = [], [], []
    for _ in range(2000):
        vertices = _walk(rng, 1000, 2000, zoom=1.0)
        num_vertices.append(len(vertices))
        for index, ((x0, y0), (x1, y1)) in enumerate(pairwise(vertices)):
            length = math.hypot(x1 - x0, y1 - y0)
            if length > 40 and 0 < x1 < 2000 and 0 < y1 < 1000:  # neither clipped nor spoilt by truncation
                angles.append(math.atan2(y1 - y0, x1 - x0) * (-1 if index % 2 == 0 else 1))
                lengths.append(length)
    assert set(num_vertices) == set(range(5, 13))  # the start and 4 to 11 steps
    # Mean 2pi/5, spread at most 2pi/15, up and down by turns. Truncation turns a step of 40 by up to 2 degrees.
    assert np.mean(angles) == pytest.approx(2 * math.pi / 5, abs=0.02)
    assert min(angles) == pytest.approx(2 * math.pi / 5 - 2 * math.pi / 15, abs=0.05)
    assert max(angles) == pytest.approx(2 * math.pi / 5 + 2 * math.pi / 15, abs=0.05)
    assert max(lengths) == pytest.approx(2 * radius, abs=2)
    assert np.median(lengths) == pytest.approx(radius, rel=0.1)


def test_starts_fill_an_oblong_with_height_and_width_in_place():
    rng = np.random.default_rng(1)
    starts = np.array([_walk(rng, 40, 200, zoom=1.0)[0] for _ in range(3000)])
    assert starts.min(axis=0).tolist() == [0, 0]
    assert starts.max(axis=0).tolist() == [199, 39]


def test_strokes_reach_every_part_of_an_oblong():
    rng = np.random.default_rng(2)
    share = np.mean([random_strokes(rng, 64, 192) for _ in range(500)], axis=0)
    assert share.shape == (64, 192)
    assert share.min() > 0.01


def test_flips_leave_no_side_preferred():
    rng = np.random.default_rng(3)
    share = np.mean([random_strokes(rng, 128, 128) for _ in range(2000)], axis=0)
    left, right, top, bottom = share[:, :64].mean(), share[:, 64:].mean(), share[:64].mean(), share[64:].mean()
    assert abs(left - right) < 0.02  # 0.06 without flips
    assert abs(top - bottom) < 0.02


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_share_is_the_measured_one_at_any_size(size: int):
    rng = np.random.default_rng(4)
    shares = [random_strokes(rng, size, size).mean() for _ in range(1000)]
    assert np.mean(shares) == pytest.approx(0.152, abs=0.02)


@pytest.mark.parametrize(
    ("height", "width", "brush_width"), [(256, 256, 32), (128, 128, 16), (512, 256, 32), (128, 512, 16)]
)
def test_brush_scales_with_the_short_side(height: int, width: int, brush_width: int):
    # The largest disc inside a stroke is the brush: less where the border cuts it, more where a zig-zag folds.
    rng = np.random.default_rng(5)
    radii = []
    for _ in range(100):
        mask = random_strokes(rng, height, width, max_strokes=1, min_brush_width=32, max_brush_width=32)
        radii.append(cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max())
    assert np.percentile(radii, 5) == pytest.approx(brush_width / 2, rel=0.35)


def test_zoom_makes_strokes_smaller():
    full = np.mean([random_strokes(np.random.default_rng(seed), 256, 256).mean() for seed in range(200)])
    half = np.mean([random_strokes(np.random.default_rng(seed), 256, 256, zoom=0.5).mean() for seed in range(200)])
    assert 0.2 < half / full < 0.4  # a quarter, and a little more since fewer leave the image


def test_masks_are_uint8_contiguous_and_never_empty():
    for seed in range(200):
        mask = random_strokes(np.random.default_rng(seed), 32, 48, zoom=0.1)
        assert mask.dtype == np.uint8
        assert mask.flags.c_contiguous
        assert set(np.unique(mask)) == {0, 1}
