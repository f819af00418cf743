"""Precision and recall of edges, counted by hand."""

import numpy as np
import pytest

from jobs.evaluation.metrics.edges import has_edges, score_edges


def edges(*columns):
    found = np.zeros((8, 8), bool)
    found[:, list(columns)] = True
    return found


def hole(*columns):
    return edges(*columns).astype(np.uint8)


@pytest.mark.parametrize(
    ("predicted", "truth", "mask", "precision", "recall"),
    [
        (edges(), edges(), hole(1, 2), 1, 1),
        (edges(1), edges(1), hole(1, 2), 1, 1),
        (edges(1), edges(1, 2), hole(1, 2), 1, 0.5),
        (edges(1, 2, 3), edges(1), hole(1, 2, 3), 1 / 3, 1),
        (edges(1), edges(), hole(1), 0, 0),
        (edges(), edges(1), hole(1), 0, 0),
        (edges(1, 6), edges(1, 7), hole(0, 1), 1, 1),  # what is visible does not count
    ],
)
def test_edges_in_the_hole_are_counted(predicted, truth, mask, precision, recall):
    found = score_edges(predicted, truth, mask)
    assert (found["edge_precision"], found["edge_recall"]) == pytest.approx((precision, recall), abs=1e-8)
    assert has_edges(truth, mask) == (truth & (mask == 1)).any()
