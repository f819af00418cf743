"""The tables show values with their intervals, and mark the best and the missing ones."""

import re

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Missing, Value
from jobs.report.formats import format_results
from jobs.report.page import render
from tests.jobs.report.pages import page, row


def cells(html):
    """Row name -> the cells of the first table, and which of them are bold."""
    table = html[html.index("<table") : html.index("</table>")]
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


def test_a_column_that_no_row_has_is_left_out_and_one_line_says_what_it_needs():
    note = Missing("not computed: needs Inception-v3 weights")
    small = Missing("not computed: needs images of at least 176 x 176 pixels")
    rows = [
        row("a", 5.0, metrics={"fid": note, "kid": note, "ms_ssim": small, "lpips_vgg": Missing("other")}),
        row("b", 6.0, metrics={"fid": note}),
    ]
    html = render(page(rows=rows))
    assert {name: len(found) for name, found in cells(html)} == {"a": 1, "b": 1}
    assert html.count("FID, KID: not computed: needs Inception-v3 weights<") == 1
    assert "MS-SSIM: not computed: needs images of at least 176 x 176 pixels<" in html
    assert "LPIPS (VGG-16): other<" in html


def test_a_value_that_one_row_lacks_is_a_footnote_and_never_a_number():
    rows = [
        row("a", 5.0, metrics={"psnr": Missing("not computed: lost")}),
        row("b", 6.0, metrics={"psnr": Value(20.0)}),
        row("c", 7.0),
    ]
    html = render(page(rows=rows))
    found = {name: [body for _, body in cell][1:] for name, cell in cells(html)}
    assert found == {"a": ["–<sup>1</sup>"], "b": ["20.00"], "c": ["–"]}
    assert "<li>not computed: lost</li>" in html


def compared(first, second, p_value, group="overall", difference=-1.0):
    return Comparison(
        metric="l1_hole_percent",
        group=group,
        first=first,
        second=second,
        difference=Value(difference, difference - 0.5, difference + 0.5),
        p_value=p_value,
    )


def test_rows_that_are_not_significantly_worse_than_the_best_are_marked():
    bins = {"0.1-0.2": {"l1_hole_percent": Value(4.0)}}
    rows = [row("a", 5.0, by_bin=bins), row("b", 6.0), row("c", 7.0), row("a", 30.0, "untrained")]
    comparisons = [
        compared("a", "b", 0.2), compared("a", "c", 0.001), compared("b", "c", 0.3),
        compared("a", "a_untrained", 0.001), compared("a", "b", 0.001, "0.1-0.2"), compared("a", "c", 0.4, "0.1-0.2"),
    ]  # fmt: skip
    html = render(page(rows=rows, comparisons=comparisons, bins=[("0.1-0.2", 9)]))
    assert [(name, cell[0][0]) for name, cell in cells(html)] == [
        ("a", ' class="best"'), ("b", ' class="level"'), ("c", ""), ("a", ""),
    ]  # fmt: skip
    assert "Underlined: not significantly worse" in html
    assert "Underlined" not in render(page(rows=rows))


def test_the_table_of_pairs_names_the_better_row_of_each_bin():
    bins = {name: {"l1_hole_percent": Value(4.0)} for name in ("0.1-0.2", "0.2-0.3")}
    rows = [row("a", 5.0, by_bin=bins), row("b", 6.0, by_bin=bins)]
    comparisons = [
        compared("b", "a", 0.001, difference=1.0),
        compared("b", "a", 0.06, "0.1-0.2", difference=1.0),
        compared("b", "a", 0.001, "0.2-0.3"),
    ]
    html = render(page(rows=rows, comparisons=comparisons, bins=[("0.1-0.2", 9), ("0.2-0.3", 9)]))
    table = re.search(r'<table class="pairs">.*?</table>', html, re.DOTALL)[0]
    assert "<bdi>b</bdi> <small>against</small> <bdi>a</bdi>" in table
    assert re.findall(r"<td>(.*?)<small>(.*?)</small></td>", table) == [
        ("<bdi>a</bdi>", "+1.00 (+0.50 – +1.50)"),
        ("–", "+1.00 (+0.50 – +1.50)"),
        ("<bdi>b</bdi>", "−1.00 (−1.50 – −0.50)"),
    ]
    assert "Which of two rows" not in render(page(rows=rows))


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


def test_guided_rows_have_a_table_of_their_own_and_are_best_only_in_it():
    bins = {"x": {"l1_hole_percent": Value(5.0)}}
    rows = [row("a", 5.0, by_bin=bins), row("b", 6.0, by_bin=bins), row("b", 1.0, "guided", by_bin=bins)]
    html = render(page(rows=rows, bins=[("x", 1)]))
    tables = html.split("<table")[1:]
    with_one = [number for number, table in enumerate(tables) if ">1.00<" in table]
    assert with_one == [1]
    assert [name for name, _ in cells(html)] == ["a", "b"]
    assert 'class="best">5.00' in tables[0]
    assert "Guided by the true edges inside the hole" in tables[1]
    text = format_results(page(rows=rows, bins=[("x", 1)]), "markdown")
    assert text.index("**5.00**") < text.index("With the true edges") < text.index("**1.00**")
    assert format_results(page(rows=rows), "latex").count("tabular}{l") == 2
