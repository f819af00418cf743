"""P-IDS and U-IDS: how well a line in feature space tells true pictures from composites.

Zhao et al., "Large Scale Image Completion via Co-Modulated Generative Adversarial Networks", 2021. Both are measured on
the pictures that the classifier was fitted on, so they depend on their number: compare only values of one list.
"""

from __future__ import annotations

import warnings

import numpy as np

from jobs.evaluation.metrics.inception import Features
from jobs.evaluation.metrics.intervals import bootstrap_interval
from jobs.evaluation.metrics.value import Missing, Value

IDS_MIN_IMAGES = 2500
"""With 2048 features, fewer pictures can be told apart by any labels, and both values are near 0."""


def discriminability(
    features: Features, *, samples: int, min_images: int = IDS_MIN_IMAGES
) -> dict[str, Value | Missing]:
    """Compute both scores in percent, with their 95 % intervals over images for the fitted classifier.

    features: of true pictures and composites.
    samples: number of resamples behind the intervals.
    min_images: fewest images with which the scores are reported.
    Returns name -> value:
    p_ids_percent: share of pairs whose composite looks more real than its true picture; 50 is ideal. A tie is no win.
    u_ids_percent: share of pictures that are classified wrongly; 50 is best.
    """
    names = ("p_ids_percent", "u_ids_percent")
    if features.num_images < min_images:
        reason = f"not computed: needs at least {min_images:,} images for P-IDS and U-IDS, not {features.num_images:,}"
        return dict.fromkeys(names, Missing(reason))
    real, fake = _decisions(*features.read(slice(None)))  # the classifier needs all pairs at once
    wins, errors = fake > real, ((real <= 0).astype(float) + (fake > 0)) / 2
    return {
        name: bootstrap_interval(100 * values.astype(float), features.images, seed=0, samples=samples)
        for name, values in zip(names, (wins, errors), strict=True)
    }


def _decisions(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear support vector machine, real = 1, and return its decision values, (N,) each; above 0 = real."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    labels = np.repeat([1, 0], (len(real), len(fake)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the authors stop after the default iterations, too
        machine = LinearSVC(dual=False).fit(np.concatenate([real, fake]), labels)
    return machine.decision_function(real), machine.decision_function(fake)
