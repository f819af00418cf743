"""Means over images, their 95 % bootstrap intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from jobs.evaluation.metrics.value import Value


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, images: Sequence[Hashable], *, seed: int, samples: int = 2000
) -> Value:
    """Compute the mean of the values and its 95 % percentile interval over resampled images.

    Whole images are drawn with replacement, each with all its masks, because values of one image are dependent. The
    draws depend only on the seed and the order of images, not on the values. The interval of a single image has width
    zero and says nothing about other images.

    values: one finite number per (image, mask) pair.
    images: the key of each pair's image.
    seed: seed of the draws.
    samples: number of resamples.
    Raises ValueError for an empty list, for values that are not finite, and for lists of different length.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(images) or not len(values):
        raise ValueError(f"one image per value and at least one, got values {values.shape} and {len(images)} images")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; a metric returned NaN or infinity")
    ids = {image: number for number, image in enumerate(dict.fromkeys(images))}
    image_of = np.array([ids[image] for image in images])
    # Sums are of differences from the first value: constant values then give an interval of exactly zero width.
    origin = values[0]
    sums = np.bincount(image_of, weights=values - origin)
    sizes = np.bincount(image_of)
    blocks = resample_counts(len(sums), seed=seed, samples=samples)
    means = origin + np.concatenate([(counts @ sums) / (counts @ sizes) for counts in blocks])
    low, high = np.percentile(means, (2.5, 97.5))
    return Value(float(origin + (values - origin).mean()), float(low), float(high))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    images: Sequence[Hashable],
    *,
    seed: int,
    samples: int = 2000,
) -> Value:
    """Compute the mean of first - second over the same pairs, with the interval of `bootstrap_interval`.

    The difference is significant if 0 is outside the interval. The interval is much narrower than the two separate
    ones, because both methods are compared on the same images.

    first, second: one number per (image, mask) pair, in the same order.
    images, seed, samples: as in `bootstrap_interval`.
    Raises ValueError for lists of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"both must score the same pairs, got {len(first)} and {len(second)} values")
    return bootstrap_interval(np.subtract(first, second, dtype=np.float64), images, seed=seed, samples=samples)


def resample_counts(num_images: int, *, seed: int, samples: int) -> Iterator[np.ndarray]:
    """Draw images with replacement, a block of resamples at a time.

    The draws depend only on the arguments, hence all metrics and rows with one list of images share them.

    Yields int (rows, num_images): how often each image is drawn. The rows of all blocks are `samples`.
    """
    rng = np.random.default_rng(seed)
    block = max(1, 2**20 // num_images)  # bounds the memory
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        draws = rng.integers(num_images, size=(rows, num_images)) + num_images * np.arange(rows)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * num_images).reshape(rows, num_images)  # multinomial
