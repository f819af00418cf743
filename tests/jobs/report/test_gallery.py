"""The gallery has a column per label."""

import io

import numpy as np
import pytest
from PIL import Image

from jobs.report.data import GalleryCell, GalleryRow
from jobs.report.heat import BRIGHTEST, encode_errors
from jobs.report.page import render
from tests.jobs.report.pages import Nodes, page, png


def test_gallery_has_a_column_per_label_and_marks_what_is_missing():
    rows = [
        GalleryRow(
            key="k1",
            bin="b",
            caption="median",
            cells=[GalleryCell("input", png(48, 64)), GalleryCell("truth", png(300, 600))],
        ),
        GalleryRow(key="k2", bin="b", caption="worst", cells=[GalleryCell("input", png(128, 128))]),
    ]
    html = render(page(gallery=rows))
    pictures = [found for tag, found in Nodes(html).elements if tag == "img" and "src" in found]
    assert [(found["width"], found["height"]) for found in pictures] == [("144", "192"), ("256", "512"), ("128", "128")]
    assert ["class" in found for found in pictures] == [True, False, True]
    assert [found["alt"] for found in pictures] == ["input, k1", "truth, k1", "input, k2"]
    assert html.count('<td class="absent" data-role="result">–</td>') == 1


def test_pictures_that_are_no_png_are_refused():
    broken = GalleryRow(key="val/7", bin="", caption="", cells=[GalleryCell("input", b"<svg onload=alert(1)>")])
    with pytest.raises(ValueError, match=r"val/7: input is not a PNG"):
        render(page(gallery=[broken]))


def test_the_pairs_on_which_networks_disagree_most_come_first():
    rows = [
        GalleryRow(key=key, bin="b", caption="", cells=[GalleryCell("input", png())], disagreement=difference)
        for key, difference in (("low", 0.5), ("high", 9.0), ("middle", 3.0))
    ]
    html = render(page(gallery=rows))
    assert sorted(("low", "high", "middle"), key=lambda key: html.index(f"<bdi>{key}</bdi>")) == [
        "high",
        "middle",
        "low",
    ]


def test_a_heat_map_is_black_where_nothing_differs_and_brightens_with_the_error():
    truth = np.full((2, 3, 3), 100, np.uint8)
    picture = truth.copy()
    picture[0, 1:, :] = [[130, 70, 100], [104, 100, 100]]
    picture[1] = [[101, 100, 100], [100 + BRIGHTEST] * 3, [0, 0, 0]]
    colours = np.array(Image.open(io.BytesIO(encode_errors(picture, truth))).convert("RGB")).sum(axis=2)
    none, least, small, large, brightest, beyond = (
        colours[0, 0], colours[1, 0], colours[0, 2], colours[0, 1], colours[1, 1], colours[1, 2],
    )  # fmt: skip
    assert none < least <= small < large < brightest == beyond
    assert none < 10
