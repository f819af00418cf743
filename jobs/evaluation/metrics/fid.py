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
    (mu1, root1), (mu2, root2) = (_moments(side.astype(np.float64)) for side in (features.real, features.fake))
    # tr (S1 S2)^1/2 is the sum of the singular values of A1^T A2 with S = A A^T: there is no complex part to discard.
    overlap = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    distance = np.square(mu1 - mu2).sum() + np.square(root1).sum() + np.square(root2).sum() - 2 * overlap
    return Value(float(distance))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and a square matrix A such that A A^T is the covariance."""
    mean = features.mean(axis=0)
    centred = features - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / (len(features) - 1))
    return mean, directions * np.sqrt(variances.clip(0))
