"""The features that FID, KID, P-IDS and U-IDS compare: 2048 numbers per picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from jobs.evaluation.metrics.feature_weights import WeightsError, read_state
from jobs.evaluation.metrics.picture_batches import Pictures, device_batches
from jobs.evaluation.settings import Weights

INCEPTION = "Inception-v3 weights (2015-12-05)"


@dataclass(frozen=True)
class Features:
    """The features of N pairs of a true picture and a composite.

    real, fake: (N, num_features).
    images: key of the image of each pair; a key comes once per mask.
    bins: bin of the mask of each pair.
    """

    real: np.ndarray
    fake: np.ndarray
    images: tuple[str, ...]
    bins: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(set(self.images))

    def of_bin(self, name: str) -> Features:
        """Return the pairs of one bin, in order."""
        chosen = [number for number, bin_name in enumerate(self.bins) if bin_name == name]
        images = tuple(self.images[number] for number in chosen)
        return Features(self.real[chosen], self.fake[chosen], images, (name,) * len(chosen))


def join_features(parts: Sequence[Features]) -> Features:
    """Return the pairs of all parts, in order."""
    real, fake = (np.concatenate([getattr(part, name) for part in parts]) for name in ("real", "fake"))
    images, bins = (tuple(text for part in parts for text in getattr(part, name)) for name in ("images", "bins"))
    return Features(real, fake, images, bins)


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
