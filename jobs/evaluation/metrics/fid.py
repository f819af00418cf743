"""Frechet Inception distance.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017:
FID = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), with covariances divided by N - 1, in float64. FID is biased upwards
by about 1 / N: compare two values only for the same list of images.
"""

from __future__ import annotations

import numpy as np

from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.value import Missing, Value

FID_MIN_IMAGES = 2048
"""With fewer images than features the covariance is singular, and FID is not reported."""


def fid(features: Features, *, min_images: int = FID_MIN_IMAGES) -> Value | Missing:
    """Compute FID of the pairs; 0 = equal. Masks of one image count as one image in the limit.

    features: of true pictures and composites.
    min_images: fewest images with which FID is reported.
    """
    if features.num_images < min_images:
        return Missing(f"not computed: needs at least {min_images:,} images for FID, not {features.num_images:,}")
    (mu1, root1), (mu2, root2) = _moments(features)
    # tr (S1 S2)^1/2 is the sum of the singular values of A1^T A2 with S = A A^T: there is no complex part to discard.
    overlap = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    distance = np.square(mu1 - mu2).sum() + np.square(root1).sum() + np.square(root2).sum() - 2 * overlap
    return Value(float(distance))


def _moments(features: Features) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return for each side the mean, and a square matrix A such that A A^T is the covariance.

    The features are read twice, a block at a time, so that the memory does not depend on the number of pairs.
    """
    sums: list[np.ndarray | float] = [0.0, 0.0]
    for block in features.blocks():
        sums = [total + values.sum(axis=0) for total, values in zip(sums, block, strict=True)]
    means = [total / len(features) for total in sums]
    scatters: list[np.ndarray | float] = [0.0, 0.0]
    for block in features.blocks():
        centred = [values - mean for values, mean in zip(block, means, strict=True)]
        scatters = [total + values.T @ values for total, values in zip(scatters, centred, strict=True)]
    return tuple((mean, _root(scatter / (len(features) - 1))) for mean, scatter in zip(means, scatters, strict=True))


def _root(covariance: np.ndarray) -> np.ndarray:
    variances, directions = np.linalg.eigh(covariance)
    return directions * np.sqrt(variances.clip(0))
