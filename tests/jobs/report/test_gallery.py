"""The gallery has a column per label."""

import pytest

from jobs.report.data import GalleryRow
from jobs.report.page import render
from tests.jobs.report.pages import Nodes, page, png


def test_gallery_has_a_column_per_label_and_marks_what_is_missing():
    rows = [
        GalleryRow(key="k1", bin="b", caption="median", cells=[("input", png(48, 64)), ("truth", png(300, 600))]),
        GalleryRow(key="k2", bin="b", caption="worst", cells=[("input", png(128, 128))]),
    ]
    html = render(page(gallery=rows))
    pictures = [found for tag, found in Nodes(html).elements if tag == "img"]
    assert [(found["width"], found["height"]) for found in pictures] == [("144", "192"), ("256", "512"), ("128", "128")]
    assert ["class" in found for found in pictures] == [True, False, True]
    assert [found["alt"] for found in pictures] == ["input, k1", "truth, k1", "input, k2"]
    assert html.count('<td class="absent">–</td>') == 1


def test_pictures_that_are_no_png_are_refused():
    broken = GalleryRow(key="val/7", bin="", caption="", cells=[("input", b"<svg onload=alert(1)>")])
    with pytest.raises(ValueError, match=r"val/7: input is not a PNG"):
        render(page(gallery=[broken]))
