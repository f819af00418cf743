"""The features that FID, KID, P-IDS and U-IDS compare: 2048 numbers per picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from jobs.evaluation.metrics.feature_weights import WeightsError, read_state
from jobs.evaluation.metrics.picture_batches import Pictures, device_batches
from jobs.evaluation.settings import Weights

_BLOCK_PAIRS = 1024  # 32 MB of features of both sides

INCEPTION = "Inception-v3 weights (2015-12-05)"


@dataclass(frozen=True)
class Features:
    """The features of pairs of a true picture and a composite. They may be on disk: they are read in blocks.

    real: of the images, (num_images, num_features).
    fake: of the composites, (num_composites, num_features).
    image_of: number of the image of each composite, (num_composites,).
    chosen: numbers of the composites whose pairs these are, (num_pairs,).
    """

    real: np.ndarray
    fake: np.ndarray
    image_of: np.ndarray
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def images(self) -> np.ndarray:
        """Number of the image of each pair."""
        return self.image_of[self.chosen]

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(np.unique(self.images))

    def read(self, pairs: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of the true pictures and composites of some pairs, float64 (n, num_features) each."""
        fakes = self.chosen[pairs]
        return self.real[self.image_of[fakes]].astype(np.float64), self.fake[fakes].astype(np.float64)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the features of all pairs, a block at a time, as `read` does."""
        for start in range(0, len(self), _BLOCK_PAIRS):
            yield self.read(slice(start, start + _BLOCK_PAIRS))


def load_inception(weights: Weights) -> nn.Module:
    """Load Inception-v3 of 2015-12-05 with 2048 features, and TF1's bilinear resize without antialiasing.

    weights: the file `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity; `pt_inception-...` of pytorch-fid
        is the same network.
    Raises WeightsError for a wrong checksum or content.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3  # takes a second, and few evaluations need it

    # torch-fidelity unpickles the file that it is given. It gets the tensors that were read safely instead.
    buffer = io.BytesIO()
    torch.save(read_state(weights), buffer)
    buffer.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = NoTrainInceptionV3("inception-v3-compat", ["2048"], buffer, antialias=False)
    except RuntimeError as error:
        raise WeightsError(f"{weights.path}: does not fit Inception-v3 of torch-fidelity: {error}") from error
    return network


def extract_features(pictures: Pictures, network: nn.Module, *, batch_size: int = 32) -> np.ndarray:
    """Compute the features of N pictures.

    network: `load_inception(weights)` on any device, or a module that maps uint8 (N, 3, H, W) to float (N, features).
    Returns (N, features).
    """
    with torch.no_grad():
        batches = device_batches([pictures], network, batch_size)
        return np.concatenate([network(batch).cpu().numpy() for (batch,) in batches])
