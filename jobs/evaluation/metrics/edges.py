"""Precision and recall of predicted edges inside the hole.

Nazeri et al., "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning", 2019, Table 1: pixel by pixel,
without tolerance. The authors sum over a batch; here each pair has its own values.
"""

from __future__ import annotations

import numpy as np


def score_edges(predicted: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare predicted edges with those of the complete image.

    predicted, truth: bool (H, W).
    mask: (H, W), 1 = hole; only its pixels count.
    Returns "edge_precision" and "edge_recall" in [0, 1]; both are 1 where neither has an edge in the hole.
    """
    hole = mask == 1
    num_predicted, num_true = (int(np.count_nonzero(edges & hole)) for edges in (predicted, truth))
    if not num_predicted and not num_true:
        return {"edge_precision": 1.0, "edge_recall": 1.0}
    found = int(np.count_nonzero(predicted & truth & hole))
    return {"edge_precision": found / (num_predicted + 1e-8), "edge_recall": found / (num_true + 1e-8)}


def has_edges(truth: np.ndarray, mask: np.ndarray) -> bool:
    """Tell whether the hole hides an edge. Means of the two scores are over such pairs only."""
    return bool((truth & (mask == 1)).any())
