"""The notes name what a row lacks."""

from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Group, Summary
from jobs.report.notes import describe_results


def test_pairs_over_the_limit_exact_pairs_and_holes_without_edges_are_named():
    metrics = {"psnr_exact": Value(0.1), "edge_recall": Value(0.5, pairs=7)}
    summary = Summary(
        "3f9a", 4,
        {"a": {OVERALL: Group(10, metrics)}, "b": {OVERALL: Group(10, {"psnr_exact": Value(0.0)})}},
        {"patch_match": [(f"k{number}", "0.1-0.2") for number in range(7)]},
    )  # fmt: skip
    late, exact, edges = describe_results([summary])
    assert late.startswith("patch_match did not fill 7 pairs in time, and its figures are without them: k0 0.1-0.2, ")
    assert "k4 0.1-0.2, and 2 more. Another machine" in late
    assert exact == "a fills 1 pair exactly as the truth; their PSNR counts as 100 dB."
    assert edges == "Edge precision and recall of a are means over 7 pairs; the holes of 3 others hide no edge."
