"""Draw irregular holes as in the partial-convolution paper: areas that a moving object covers or uncovers.

Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, Sec. 4.1. The paper estimates
occlusions between consecutive video frames, then dilates, rotates and crops them. Neither its videos nor its tool are
public, so the motion is simulated here.

- From the paper: holes are such occlusions, at 512x512.
- By report, from the authors' notes on the published files: a dilation by 9 to 49 pixels.
- Chosen here, because no description goes further: one object per call; its outline is a smooth closed curve; its
  motion is small and nearly rigid; the hole is the strips along the outline that the motion crosses in one direction;
  all numbers below except the dilation.

Rotation and crop are part of the draw: outlines have no preferred direction and may be partly outside the image.
Estimated occlusions also have specks and ragged rims, which these do not have.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

MIN_DILATION, MAX_DILATION = 9, 49  # pixels at 512: the pen that a strip is drawn with
_PAPER_SIZE = 512
_NUM_POINTS = 64  # of an outline
_NUM_WAVES = 6  # cosines of the radius around the outline, the first with two lobes
_ROUGHNESS = 0.35  # standard deviation of the first wave's height, as a share of the radius
_MIN_RADIUS, _MAX_RADIUS = 0.06, 0.35  # shares of the short side
_MIN_SHIFT, _MAX_SHIFT = 0.01, 0.08  # shares of the short side
_TURN = math.radians(6)  # standard deviation of the rotation
_GROWTH = 0.06  # standard deviation of the logarithm of the scale
_VISIBLE_SHIFT = 2 / 512  # share of the short side; smaller shifts are no occlusion

_POINTS = np.arange(_NUM_POINTS)
_CIRCLE = np.stack([np.cos(2 * np.pi * _POINTS / _NUM_POINTS), np.sin(2 * np.pi * _POINTS / _NUM_POINTS)], axis=1)
_WAVES = np.arange(2, 2 + _NUM_WAVES)
_PHASES = 2 * np.pi * np.outer(_POINTS, _WAVES) / _NUM_POINTS
_NEXT, _BEFORE = (_POINTS + 1) % _NUM_POINTS, (_POINTS - 1) % _NUM_POINTS


def random_occlusion(rng: np.random.Generator, height: int, width: int, *, zoom: float = 1.0) -> np.ndarray:
    """Return a mask uint8 (height, width), 1 = hole: the occlusions of one moving object.

    The mask is empty if they are all outside the image. All lengths scale with the short side.
    zoom: factor on the object, its motion and the dilation.
    """
    mask = np.zeros((height, width), np.uint8)
    scale = zoom * min(height, width)
    outline = _outline(rng, scale * rng.uniform(_MIN_RADIUS, _MAX_RADIUS))
    moved = _move(rng, outline, scale * rng.uniform(_MIN_SHIFT, _MAX_SHIFT))
    side = 1 if rng.integers(2) else -1  # the area that the object covers, or the area that it uncovers
    crossed = side * _shift_across(outline, moved) > scale * _VISIBLE_SHIFT
    centre = rng.uniform((0, 0), (width, height))
    pen = max(1, 2 * int(scale * rng.uniform(MIN_DILATION, MAX_DILATION) / _PAPER_SIZE / 2))  # see draw_stroke
    for run in _runs(crossed):
        strip = np.concatenate([outline[run], moved[run[::-1]]])
        polygon = [np.rint(centre + strip).astype(np.int32)]
        cv2.fillPoly(mask, polygon, 1)
        cv2.polylines(mask, polygon, isClosed=True, color=1, thickness=pen)
    return mask


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Draw a closed curve (N, 2) around the origin, lobed, stretched and turned at random."""
    heights = rng.normal(0, _ROUGHNESS / (_WAVES - 1))
    waves = np.cos(_PHASES + rng.uniform(0, 2 * np.pi, size=_NUM_WAVES)) @ heights
    points = (radius * np.maximum(0.2, 1 + waves))[:, None] * _CIRCLE * (1, rng.uniform(0.5, 1))
    return points @ _rotation(rng.uniform(0, 2 * np.pi))


def _move(rng: np.random.Generator, outline: np.ndarray, shift: float) -> np.ndarray:
    """Return the curve (N, 2) one frame later: turned, scaled a little, and shifted by `shift` pixels."""
    direction = rng.uniform(0, 2 * np.pi)
    turned = outline @ _rotation(rng.normal(0, _TURN)) * math.exp(rng.normal(0, _GROWTH))
    return turned + shift * np.array([math.cos(direction), math.sin(direction)])


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _shift_across(outline: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return how many pixels (N,) each point has moved outward, at right angles to the outline."""
    tangents = outline[_NEXT] - outline[_BEFORE]
    shifts = moved - outline
    return (shifts[:, 0] * tangents[:, 1] - shifts[:, 1] * tangents[:, 0]) / np.hypot(tangents[:, 0], tangents[:, 1])


def _runs(crossed: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each run of at least two True neighbours in a circular array (N,)."""
    if crossed.all():
        return [np.append(_POINTS, 0)]  # closed
    firsts = np.flatnonzero(crossed & ~crossed[_BEFORE])
    ends = np.flatnonzero(~crossed & crossed[_BEFORE])
    if len(ends) and ends[0] <= firsts[0]:  # the last run continues at index 0
        ends = np.append(ends[1:], ends[0] + _NUM_POINTS)
    return [np.arange(first, end) % _NUM_POINTS for first, end in zip(firsts, ends, strict=True) if end - first > 1]
