"""Resampled images that many statistics share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from jobs.evaluation.metrics.intervals import resample_counts

_COUNT = np.uint16


class Resamples:
    """Draws of images with replacement, made once and read many times. A temporary file holds them.

    num_images: number of images to draw from, and of draws.
    samples: number of resamples.
    """

    def __init__(self, num_images: int, samples: int) -> None:
        self._num_images = num_images
        self._block_sizes: list[int] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is removed with this object
        for block in resample_counts(num_images, seed=0, samples=samples):
            block.astype(_COUNT).tofile(self._file)
            self._block_sizes.append(len(block))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the blocks of `resample_counts` with seed 0, as float64."""
        self._file.seek(0)
        for rows in self._block_sizes:
            block = np.fromfile(self._file, _COUNT, rows * self._num_images)
            yield block.reshape(rows, self._num_images).astype(float)
