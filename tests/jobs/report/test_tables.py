"""The tables show values with their intervals, and mark the best and the missing ones."""

import re

from jobs.evaluation.metrics.value import Missing, Value
from jobs.report.page import render
from tests.jobs.report.pages import page, row


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
    note = Missing("not computed: needs Inception-v3 weights")
    rows = [
        row("a", 5.0, metrics={"fid": note, "psnr": note}),
        row("b", 6.0, metrics={"fid": Missing("other")}),
        row("c", 7.0),
    ]
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
