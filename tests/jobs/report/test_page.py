"""The page escapes what is hostile, asks for nothing from outside and says what the numbers say."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jobs.evaluation.metrics import NotComputed, Value
from jobs.report.page import Curves, GalleryRow, Page, Row, render

HOSTILE = (
    "</title></style><script>alert(1)</script>'\" onload='x' <img src=x onerror=alert(1)>"
    "{{ 7 * 7 }} $\\frac$ &amp; --> url(http:/x) javascript:alert(1)"
)


class Nodes(HTMLParser):
    """Elements with their attributes, and the text outside of style."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.inside = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, text):
        if "style" not in self.inside:
            self.text += text

    def texts(self):
        return re.sub(r"\s+", " ", self.text)


def png(width=8, height=8, level=0):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def row(name, hole_l1, kind="generator", **rest):
    metrics = {"l1_hole_percent": Value(hole_l1, hole_l1 - 0.5, hole_l1 + 0.5)}
    return Row(name=name, kind=kind, metrics=metrics | rest.pop("metrics", {}), **rest)


def page(**changes):
    rows = (row("mean_colour", 9.0, "baseline"), row("edge_connect", 5.0), row("edge_connect", 30.0, "untrained"))
    plain = Page(
        dataset="shapes",
        height=64,
        width=48,
        num_images=1200,
        num_masks=6,
        suite="3f9a",
        budget="2,000 steps",
        rows=rows,
    )
    return replace(plain, **changes)


def full_page(text):
    """A page with the text wherever text can stand."""
    metrics = {text: Value(1.0, 0.5, 1.5), "fid": text, "psnr": Value(20.0)}
    bins = {text: {"l1_hole_percent": Value(3.0), "psnr": Value(20.0)}, "0.1-0.2": {"l1_hole_percent": text}}
    rows = [
        row(text, 4.0, kind, metrics=metrics, by_bin=bins, paper=text)
        for kind in ("generator", "untrained", "baseline")
    ]
    return page(
        dataset=text,
        suite=text,
        rows=[*rows, row("mean_colour", 9.0, "baseline")],
        bins=[(text, 4), ("0.1-0.2", 5)],
        curves=[
            Curves(generator=text, phase=text, steps=[1, 2, 3], series={text: [3.0, 2.0, 1.0]}),
            Curves(generator="b", phase="edges", steps=[1, 2, 3], series={"l1": [300.0, 2.0, 1.0]}),
            Curves(generator="c", phase="edges", steps=[1], series={"l1": [float("nan")]}),
        ],
        gallery=[GalleryRow(key=text, bin=text, caption=text, cells=[(text, png()), ("truth", png())])],
        facts=[(text, text)],
        commands=[text],
        notes=[text],
    )


# Safety


def test_hostile_text_adds_no_element_and_no_attribute():
    hostile, plain = Nodes(render(full_page(HOSTILE))), Nodes(render(full_page("plain")))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [set(attributes) for _, attributes in hostile.elements] == [set(found) for _, found in plain.elements]
    assert hostile.texts().count("<script>alert(1)</script>") >= 20
    assert "49" not in hostile.texts()


@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_nothing_on_the_page_can_run_or_ask_for_anything(text):
    elements = Nodes(render(full_page(text))).elements
    forbidden = {"script", "iframe", "object", "embed", "form", "base", "a", "foreignobject", "video", "audio"}
    assert not forbidden & {tag for tag, _ in elements}
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")) or (tag == "link" and value == "data:,")
        assert "url(" not in attributes.get("style", "")
        assert attributes.get("clip-path", "url(#").startswith("url(#")


def test_policy_and_style_allow_no_request():
    html = render(full_page("plain"))
    policy = [found["content"] for tag, found in Nodes(html).elements if tag == "meta" and "http-equiv" in found]
    assert policy == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert "://" not in html
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_and_references_resolve():
    html = render(full_page("plain"))
    ids = [found["id"] for _, found in Nodes(html).elements if "id" in found]
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)


def test_equal_data_give_equal_text_whatever_the_user_has_configured():
    import matplotlib

    html = render(full_page("plain"))
    with matplotlib.rc_context({"font.size": 30, "grid.linestyle": "--", "svg.fonttype": "path"}):
        assert render(full_page("plain")) == html
        assert matplotlib.rcParams["font.size"] == 30


def test_names_that_are_no_utf8_do_not_stop_the_page():
    assert "caf?" in Nodes(render(full_page("caf\udce9"))).texts()


def test_pictures_that_are_no_png_are_refused():
    broken = GalleryRow(key="val/7", bin="", caption="", cells=[("input", b"<svg onload=alert(1)>")])
    with pytest.raises(ValueError, match=r"val/7: input is no PNG"):
        render(page(gallery=[broken]))


# What it says


def summary(*rows):
    text = Nodes(render(page(rows=[row("mean_colour", 9.0, "baseline"), *rows]))).texts()
    return text[text.index("Filling with") : text.index(" Comparison")]


def test_summary_names_who_beats_the_mean_colour_and_who_does_not():
    text = summary(
        row("a", 12.0, against_reference=Value(3.0, 2.0, 4.0)),
        row("b", 8.8, against_reference=Value(-0.2, -0.5, 0.1)),
        row("c", 5.0, against_reference=Value(-4.0, -5.0, -3.0)),
        row("a", 40.0, "untrained"),
        row("telea", 6.0, "baseline"),
    )
    assert "an error of 9.00 % (L1 in the hole). 1 of 3 trained generators beats it: c." in text
    assert "No clear difference: b. Not better: a." in text
    assert "None of 1 untrained networks beats it." in text
    assert "1 of 1 other baselines beats it: telea." in text


def test_summary_sorts_by_error_and_without_intervals_the_means_decide():
    assert "2 of 3 trained generators beat it: c, b. Not better: a." in summary(
        row("a", 9.1), row("b", 8.9), row("c", 2.0)
    )


def test_equal_to_the_mean_colour_is_not_better():
    assert "None of 1 trained generators beats it. No clear difference: a." in summary(row("a", 9.0))


def test_rows_without_a_number_stay_out_of_the_summary():
    missing = Row(name="lost", kind="generator", metrics={"l1_hole_percent": "not computed: needs a checkpoint"})
    assert "1 of 1 trained generators beats it: a." in summary(row("a", 1.0), missing, row("diverged", float("nan")))


def test_without_the_reference_the_summary_says_so():
    text = Nodes(render(page(rows=[row("a", 1.0)]))).texts()
    assert "Filling with the mean colour was not scored" in text


def test_title_line_says_what_was_compared():
    text = Nodes(render(page())).texts()
    for part in ("shapes", "1,200 images × 6 masks", "64 × 48 pixels", "trained for 2,000 steps", "suite 3f9a"):
        assert part in text


def cells(html):
    """Row name -> the cells of the first table, and which of them are bold."""
    table = html[html.index("<table>") : html.index("</table>")]
    rows = re.findall(r'<th scope="row"><bdi>(.*?)</bdi>.*?</th>(.*?)</tr>', table, re.DOTALL)
    return [(name, re.findall(r"<td(.*?)>(.*?)</td>", body)) for name, body in rows]


def test_values_stand_with_their_intervals_and_the_best_is_bold():
    rows = cells(render(page()))
    assert [name for name, _ in rows] == ["edge_connect", "edge_connect", "mean_colour"]
    assert rows[0][1] == [(' class="best"', "5.00<small>4.50 – 5.50</small>")]
    assert rows[2][1] == [("", "9.00<small>8.50 – 9.50</small>")]


def test_best_is_highest_psnr_and_tv_closest_to_the_truth_and_ties_share_it():
    def scores(psnr, tv):
        return {"psnr": Value(psnr), "tv_percent": Value(tv), "new": Value(psnr)}

    rows = [row("a", 5.0, metrics=scores(20.0, 1.0)), row("b", 5.001, metrics=scores(25.0, 4.5))]
    found = dict(cells(render(page(rows=rows, tv_truth=4.0))))
    bold = {name: [bool(attributes) for attributes, _ in body] for name, body in found.items()}
    assert bold == {"a": [True, False, False, False], "b": [True, True, True, False]}
    assert "truth 4.00" in render(page(rows=rows, tv_truth=4.0))
    assert not dict(cells(render(page(rows=rows))))["b"][2][0]


def test_what_is_not_computed_is_a_footnote_and_never_a_number():
    note = str(NotComputed("Inception-v3 weights"))
    rows = [row("a", 5.0, metrics={"fid": note, "psnr": note}), row("b", 6.0, metrics={"fid": "other"}), row("c", 7.0)]
    html = render(page(rows=rows))
    found = {name: [body for _, body in cell][1:] for name, cell in cells(html)}
    assert found == {"a": ["–<sup>1</sup>", "–<sup>1</sup>"], "b": ["–", "–<sup>2</sup>"], "c": ["–", "–"]}
    assert "<li>not computed: needs Inception-v3 weights</li>\n  <li>other</li>" in html


def test_fid_states_its_number_of_pictures():
    html = render(page(rows=[row("a", 5.0, metrics={"fid": Value(12.0)})], fid_images=2993))
    assert "<bdi>FID</bdi><small>N = 2,993</small>" in html


def test_bins_show_hole_l1_over_psnr_and_a_chart():
    bins = {"0.1-0.2": {"l1_hole_percent": Value(4.0), "psnr": Value(30.04)}, "0.2-0.3": {}}
    html = render(page(rows=[row("a", 5.0, by_bin=bins)], bins=[("0.1-0.2", 96), ("0.2-0.3", 95)]))
    assert '<td class="best">4.00<small>30.0 dB</small></td>\n      <td>–</td>' in html
    assert "N = 95" in html
    assert html.count("<figure>") == 1
    assert "By size of the hole" not in render(page())


def test_a_dollar_in_the_name_of_a_bin_is_a_dollar():
    rows = [row("a", 5.0, by_bin={"$a_b$": {"l1_hole_percent": Value(4.0)}})]
    assert Nodes(render(page(rows=rows, bins=[("$a_b$", 1)]))).texts().count("$a_b$") == 2


def test_losses_have_a_chart_per_phase_and_gaps_are_left_out():
    curves = [
        Curves(generator="a", phase="edges", steps=[0, 10, 20], series={"l1": [100.0, float("nan"), 1.0]}),
        Curves(generator="a", phase="image", steps=np.arange(5000), series={"l1": np.ones(5000), "d": -np.ones(5000)}),
        Curves(generator="b", phase="all", steps=[0], series={"l1": [float("inf")]}),
        Curves(generator="c", phase="all", steps=[], series={}),
    ]
    html = render(page(curves=curves))
    assert html.count("<figure>") == 4
    assert "edges</bdi>, logarithmic" in html
    assert "image</bdi></small>" in html
    assert html.count("No finite loss was logged.") == 2
    assert len(html) < 60_000  # 5,000 steps are drawn as 200


def test_more_lines_than_colours_still_differ():
    rows = [row(f"g{n}", 5.0 + n, by_bin={"x": {"l1_hole_percent": Value(5.0)}}) for n in range(13)]
    legend = re.findall(r'style="stroke: (.*?)" stroke-dasharray="(.*?)"', render(page(rows=rows, bins=[("x", 1)])))
    assert len(set(legend)) == 13


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
