"""The summary tells which rows beat the mean colour."""

from jobs.evaluation.comparison import Comparison
from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.results import OVERALL
from jobs.report.data import Row
from jobs.report.page import render
from tests.jobs.report.pages import Nodes, page, row


def summary(*rows, start="Filling with", **changes):
    text = Nodes(render(page(rows=[row("mean_colour", 9.0, "baseline"), *rows], **changes))).texts()
    return text[text.index(start) : text.index(" Comparison")]


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


def test_summary_begins_with_the_best_generator_and_says_whether_its_lead_is_significant():
    def beats(second, p_value):
        return Comparison(
            metric="l1_hole_percent", group=OVERALL, first=second, second="b", difference=Value(1.0), p_value=p_value
        )

    rows = [row("c", 7.0), row("a", 6.0), row("b", 5.0), row("b", 1.0, "untrained")]
    for comparisons, end in (
        ((beats("a", 0.2), beats("c", 0.01)), "5.00 %; not significantly worse: a."),
        ((beats("a", 0.01), beats("c", 0.01)), "5.00 %, significantly less than every other."),
        ((), "5.00 %."),
    ):
        text = summary(*rows, start="Of the", comparisons=comparisons)
        assert text.startswith(f"Of the trained generators, b leaves the smallest error in holes, {end} Filling with")


def test_of_a_single_generator_the_error_is_said():
    assert summary(row("a", 5.0), start="The").startswith("The trained generator a leaves an error of 5.00 % in holes.")


def test_summary_says_what_training_gained_over_the_best_row_without_it():
    def against(rival, better):
        low, first = (1.0, rival) if better == "a" else (-1.0, rival)
        p_value = 0.01 if better else 0.5
        return Comparison(
            metric="l1_hole_percent", group=OVERALL, first=first, second="a", difference=Value(low), p_value=p_value
        )

    for name, kind, rival, called in (("telea", "baseline", "telea", "telea"),
                                      ("a", "untrained", "a_untrained", "a before its training")):  # fmt: skip
        rows = [row("a", 6.0), row("b", 7.0), row(name, 5.5, kind)]
        for better, words in ((None, "not significantly different from"), ("a", "significantly more than"),
                              (rival, "significantly less than")):  # fmt: skip
            text = summary(*rows, start="Of the rows", comparisons=[against(rival, better)])
            expected = (
                f"Of the rows without training, {called} leaves the smallest error in holes, 5.50 %, {words} that"
            )
            assert text.startswith(f"{expected} of a. Filling with")


def test_summary_sorts_by_error_and_without_intervals_the_means_decide():
    assert "2 of 3 trained generators beat it: c, b. Not better: a." in summary(
        row("a", 9.1), row("b", 8.9), row("c", 2.0)
    )


def test_equal_to_the_mean_colour_is_not_better():
    assert "None of 1 trained generators beats it. No clear difference: a." in summary(row("a", 9.0))


def test_rows_without_a_number_stay_out_of_the_summary():
    missing = Row(
        name="lost", kind="generator", metrics={"l1_hole_percent": Missing("not computed: needs a checkpoint")}
    )
    assert "1 of 1 trained generators beats it: a." in summary(row("a", 1.0), missing, row("diverged", float("nan")))


def test_without_the_reference_the_summary_says_so():
    text = Nodes(render(page(rows=[row("a", 1.0)]))).texts()
    assert "Filling with the mean colour was not scored" in text
