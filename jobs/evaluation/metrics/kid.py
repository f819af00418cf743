"""Kernel Inception distance.

Binkowski et al., "Demystifying MMD GANs", 2018: the unbiased estimate of the squared maximum mean discrepancy with the
kernel (x . y / d + 1)^3 over d features. It is unbiased for every number of images, hence may be below 0.
"""

from __future__ import annotations

import numpy as np

from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.value import Missing, Value

BLOCK_IMAGES = 1000
"""Most pairs that are compared with each other; the published value is the mean over such blocks, too."""

_MIN_BLOCKS = 10


def kid(features: Features, *, block: int = BLOCK_IMAGES) -> Value | Missing:
    """Compute KID of the pairs as the mean over disjoint blocks, drawn by a fixed seed.

    features: of true pictures and composites.
    block: most pairs of a block. A set that fits in one block gives the estimate over all its pairs.
    Returns the value, with an interval of 1.96 standard errors over the blocks if there are ten or more.
    """
    count = len(features)
    if count < 2:
        return Missing(f"not computed: needs at least 2 images for KID, not {count}")
    order = np.random.default_rng(0).permutation(count)
    blocks = np.array_split(order, -(-count // block))
    values = np.array([_squared_mmd(*features.read(part)) for part in blocks])
    mean = float(values.mean())
    if len(values) < _MIN_BLOCKS:
        return Value(mean)
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return Value(mean, mean - half, mean + half)


def _squared_mmd(real: np.ndarray, fake: np.ndarray) -> float:
    n, d = real.shape

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first @ second.T / d + 1) ** 3

    within = sum(float(k.sum() - np.trace(k)) for k in (kernel(real, real), kernel(fake, fake)))
    return within / (n * (n - 1)) - 2 * float(kernel(real, fake).mean())
