"""LaMa's families of masks against the published settings, by what is really drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from masks.config import MaskConfig
from masks.drawn import draw_mask, draw_mask_in_bin
from masks.kinds import holes_of
from masks.lama import FAMILIES, family_for, random_boxes, random_chains, random_family_mask

LINE = cv2.line


@pytest.fixture
def lines(monkeypatch) -> list[tuple]:
    """Every line that is drawn: start, end, thickness."""
    drawn = []

    def record(mask, start, end, colour, thickness):
        drawn.append((start, end, thickness))
        return LINE(mask, start, end, colour, thickness)

    monkeypatch.setattr(cv2, "line", record)
    return drawn


def _chains(lines: list[tuple]) -> list[list[tuple]]:
    chains: list[list[tuple]] = []
    for line in lines:
        if chains and chains[-1][-1][1] == line[0]:
            chains[-1].append(line)
        else:
            chains.append([line])
    return chains


# max_times + 1 strokes, max_len, max_width of the authors' files
SETTINGS = [
    ("thin", 256, 4, 51, 40, 10),
    ("thin", 512, 4, 71, 100, 20),
    ("medium", 256, 4, 6, 100, 50),
    ("medium", 512, 4, 11, 200, 100),
    ("thick", 256, 1, 6, 200, 100),
    ("thick", 512, 1, 6, 450, 250),
    ("lama_train", 256, 1, 6, 200, 100),
]


@pytest.mark.parametrize(("name", "size", "fewest", "most", "max_length", "max_width"), SETTINGS)
def test_strokes_follow_the_published_settings(name, size, fewest, most, max_length, max_width, lines):
    rng = np.random.default_rng(0)
    family = family_for(name, size, size)
    counts = set()
    directions = {0: set(), 1: set()}
    lengths, widths, segments = [], set(), set()
    for _ in range(500 if most < 20 else 120):
        lines.clear()
        random_family_mask(rng, size, size, family)
        if not lines:
            continue  # boxes
        chains = _chains(lines)
        counts.add(len(chains))
        widths |= {thickness for _, _, thickness in lines}
        for index, chain in enumerate(chains):
            segments.add(len(chain))
            for (x0, y0), (x1, y1), _ in chain:
                if 0 < x1 < size and 0 < y1 < size and math.hypot(x1 - x0, y1 - y0) > 25:
                    lengths.append(math.hypot(x1 - x0, y1 - y0))
                    directions[index % 2].add(round(math.degrees(math.atan2(x1 - x0, y1 - y0)) / 57.2958))
    assert counts <= set(range(fewest, most + 1))
    assert max(counts) >= most - 2
    assert min(counts) <= fewest + 1
    assert min(widths) >= 5
    assert max(widths) <= 4 + max_width
    assert max(widths) > 4 + 0.9 * max_width
    assert segments == {1, 2, 3, 4, 5}
    assert max(lengths) <= 10 + max_length + 1  # ends are rounded down
    assert max(lengths) > 10 + 0.85 * max_length or size == 256  # long ones leave the small image
    # 0, 1, 2 and 3 radians from the vertical, to the left in strokes 0, 2, 4 and to the right in the others
    assert directions[0] <= {0, -1, -2, -3}
    assert len(directions[0]) == 4
    if most > 1:
        assert directions[1] <= {0, 1, 2, 3}
        assert len(directions[1]) == 4


def test_masks_made_for_a_bin_lean_to_both_sides(lines):
    draw_mask_in_bin(MaskConfig(kind="thin"), 128, 128, 0.8, 0.9, seed=0)
    steps = [end[0] - start[0] for start, end, _ in lines[-60:]]  # of pieces: no mask of the family has as much
    assert min(steps) < -5
    assert max(steps) > 5


@pytest.mark.parametrize(
    ("name", "chance"), [("thin", 0.0), ("medium", 0.2308), ("thick", 0.2308), ("lama_train", 0.5)]
)
def test_boxes_are_as_likely_as_published(name, chance, lines):
    rng = np.random.default_rng(1)
    num_boxes = 0
    for _ in range(600):
        lines.clear()
        random_family_mask(rng, 256, 256, family_for(name, 256, 256))
        num_boxes += not lines
    assert num_boxes / 600 == pytest.approx(chance, abs=0.06)
    assert (num_boxes == 0) == (chance == 0)


@pytest.mark.parametrize(
    ("name", "size", "shortest", "longest", "margin"),
    [
        ("medium", 256, 10, 50, 0),
        ("medium", 512, 30, 150, 0),
        ("thick", 256, 30, 150, 10),
        ("thick", 512, 30, 300, 10),
        ("lama_train", 256, 30, 150, 10),
    ],
)
def test_boxes_follow_the_published_settings(name, size, shortest, longest, margin):
    rng = np.random.default_rng(2)
    sides, first, last = [], size, 0
    for _ in range(1500):
        mask = random_boxes(rng, size, size, family_for(name, size, size), count=1)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        sides += [len(rows), len(columns)]
        assert mask.sum() == len(rows) * len(columns)
        first, last = min(first, rows[0], columns[0]), max(last, rows[-1], columns[-1])
    assert (min(sides), max(sides)) == (shortest, longest)
    assert (first, last) == (margin, size - 1 - margin)


@pytest.mark.parametrize(("name", "most"), [("medium", 5), ("thick", 3)])
def test_masks_of_boxes_have_up_to_as_many_as_published(name, most, lines):
    rng = np.random.default_rng(3)
    counts = set()
    for _ in range(800):
        lines.clear()
        mask = random_family_mask(rng, 256, 256, family_for(name, 256, 256))
        if not lines:
            counts.add(cv2.connectedComponents(mask)[0] - 1)  # boxes that touch count as one
    assert max(counts) == most
    assert min(counts) == 1


def test_training_has_no_limit_of_the_hole_ratio_and_the_measured_distribution():
    """Mean 0.354, and 23 % of the masks above 0.5: measured with the authors' generator."""
    holes = holes_of(MaskConfig(kind="lama_train"))
    rng = np.random.default_rng(5)
    ratios = np.array([holes.mask(rng, 256, 256).mean() for _ in range(2000)])
    assert ratios.mean() == pytest.approx(0.354, abs=0.015)
    assert (ratios > 0.5).mean() == pytest.approx(0.23, abs=0.03)
    drawn = np.array([draw_mask(MaskConfig(kind="lama_train"), 256, 256, seed=n).mean() for n in range(200)])
    assert drawn.max() > 0.6


def test_the_short_side_chooses_the_settings_and_scales_them(lines):
    assert family_for("thick", 511, 2000) is FAMILIES["thick", 256]
    assert family_for("thick", 512, 2000) is FAMILIES["thick", 512]
    assert family_for("lama_train", 512, 512) is FAMILIES["lama_train", 256]
    family = FAMILIES["thin", 256]
    rng = np.random.default_rng(4)
    random_chains(rng, 128, 300, family, count=200)
    random_chains(rng, 128, 300, family, count=200, zoom=0.5)
    half, quarter = _chains(lines)[:200], _chains(lines)[200:]
    assert {t for chain in half for _, _, t in chain} == {2, 3, 4, 5, 6, 7}  # half of 5 to 14, rounded down
    assert {t for chain in quarter for _, _, t in chain} == {1, 2, 3}
    ends = [end for chain in half for _, end, _ in chain]
    assert max(x for x, _ in ends) > 200
    assert max(y for _, y in ends) == 128
    box = random_boxes(rng, 40, 300, FAMILIES["thick", 256], count=1, zoom=0.01)
    assert box.any()
