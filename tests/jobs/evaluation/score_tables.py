"""Tables of scores, written as an evaluation writes them."""

from jobs.evaluation.results import score_lines, write_table
from jobs.evaluation.row_scores import rows_of


def write_scores(path, scores):
    """Write scores. Returns row -> its scores on disk."""
    if not scores:
        return {}
    write_table(path, score_lines(scores))
    return rows_of(path)
