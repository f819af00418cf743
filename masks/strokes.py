"""Draw free-form holes: the brush strokes of DeepFill v2.

Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019. The numbers are those of the authors' code.
The paper's pseudo-code has other numbers, which its author calls mistyped.
"""

import math

import cv2
import numpy as np

# From the authors' code. Only brush widths depend on the size of the image.
MIN_VERTICES = 4
MAX_VERTICES = 11
MEAN_ANGLE = 2 * math.pi / 5
ANGLE_RANGE = 2 * math.pi / 15
DIAGONAL_SHARE = 1 / 8  # mean length of a segment / diagonal of the image
_PAPER_SIZE = 256  # the image size for which the authors chose the widths


def random_strokes(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    max_strokes: int = 3,
    min_brush_width: int = 12,
    max_brush_width: int = 40,
    zoom: float = 1.0,
) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole: zig-zag strokes, flipped at random.

    max_strokes: the number of strokes is uniform in 1..max_strokes.
    min_brush_width, max_brush_width: the width is floor(U(min, max)) pixels of an image whose short side is 256.
    zoom: factor on lengths and widths.
    """
    mask = np.zeros((height, width), np.uint8)
    scale = zoom * min(height, width) / _PAPER_SIZE
    for _ in range(rng.integers(1, max_strokes + 1)):
        vertices = _walk(rng, height, width, zoom)
        brush_width = int(rng.uniform(min_brush_width * scale, max_brush_width * scale))
        draw_stroke(mask, vertices, brush_width)
    # Differs from the authors' code, which discards the flipped mask: without flips all strokes drift to the right.
    flip_y, flip_x = rng.integers(2, size=2)
    return np.ascontiguousarray(mask[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def draw_stroke(mask: np.ndarray, vertices: list[tuple[int, int]], brush_width: int) -> None:
    """Set a stroke to 1 in a mask, in place.

    mask: uint8 (H, W).
    vertices: (x, y) in pixels.
    brush_width: pixels; a stroke is at least one pixel wide.
    """
    # The authors draw lines of brush_width, and on every vertex a disc of radius floor(brush_width / 2). OpenCV rounds
    # the ends of thick lines itself. Its thickness t covers t + 1 pixels if t is even, but t + 2 if t is odd. So an
    # even thickness gives exactly the disc's diameter.
    thickness = max(1, 2 * (brush_width // 2))
    cv2.polylines(mask, [np.array(vertices, np.int32)], isClosed=False, color=1, thickness=thickness)


def _walk(rng: np.random.Generator, height: int, width: int, zoom: float) -> list[tuple[int, int]]:
    """Draw the vertices (x, y) of one stroke: a random start and 4 to 11 steps, in [0, width] x [0, height]."""
    num_steps = int(rng.integers(MIN_VERTICES, MAX_VERTICES + 1))
    angles = rng.uniform(
        MEAN_ANGLE - rng.uniform(0, ANGLE_RANGE), MEAN_ANGLE + rng.uniform(0, ANGLE_RANGE), size=num_steps
    )
    angles[::2] = 2 * math.pi - angles[::2]  # alternately up and down: a zig-zag
    radius = zoom * DIAGONAL_SHARE * math.hypot(height, width)
    lengths = np.clip(rng.normal(radius, radius // 2, size=num_steps), 0, 2 * radius)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    vertices = [(x, y)]
    for step_x, step_y in zip((lengths * np.cos(angles)).tolist(), (lengths * np.sin(angles)).tolist(), strict=True):
        x = int(min(max(x + step_x, 0), width))
        y = int(min(max(y + step_y, 0), height))
        vertices.append((x, y))
    return vertices
