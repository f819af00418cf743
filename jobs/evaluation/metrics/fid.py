"""Frechet Inception distance, computed from sums that shards add up.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017:
FID = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), with covariances divided by N - 1, in float64. FID is biased upwards
by about 1 / N: compare two values only for the same list of images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.evaluation.metrics.feature_weights import WeightsError, read_state
from jobs.evaluation.metrics.picture_batches import Pictures, device_batches
from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.settings import Weights

FID_MIN_IMAGES = 2048
"""With fewer images than features the covariance is singular, and FID is not reported."""

INCEPTION = "Inception-v3 weights (2015-12-05) for FID"

FidSums = dict[str, np.ndarray]
"""Sums over the features of true pictures and composites. The sums of two sets add up to those of their union."""


def load_inception(weights: Weights) -> nn.Module:
    """Load the network of FID: Inception-v3 of 2015-12-05, 2048 features, TF1's bilinear resize without antialiasing.

    weights: the file `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity; `pt_inception-...` of pytorch-fid
        is the same network.
    Raises WeightsError for a wrong checksum or content.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3  # takes a second, and few evaluations compute FID

    # torch-fidelity unpickles the file that it is given. It gets the tensors that were read safely instead.
    buffer = io.BytesIO()
    torch.save(read_state(weights), buffer)
    buffer.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = NoTrainInceptionV3("inception-v3-compat", ["2048"], buffer, antialias=False)
    except RuntimeError as error:
        raise WeightsError(f"{weights.path}: does not fit Inception-v3 of torch-fidelity: {error}") from error
    network.num_features = 2048
    return network


def sum_features(real8: Pictures, fake8: Pictures, network: nn.Module, *, batch_size: int = 32) -> FidSums:
    """Sum up the features of some of the pictures.

    real8, fake8: true pictures and composites of the same list, N each.
    network: `load_inception(weights)` on any device, or a module with an integer `num_features` that maps uint8
        (N, 3, H, W) to float (N, num_features).
    """
    # Sums and covariances are float64 in any case. `set_dtype(float64)` would also convert the network, which the
    # authors of published numbers did not.
    distance = _frechet(network).to(next((parameter.device for parameter in network.parameters()), "cpu"))
    for real, fake in device_batches(real8, fake8, network, batch_size):
        distance.update(real, real=True)
        distance.update(fake, real=False)
    return {name: value.cpu().numpy() for name, value in distance.metric_state.items()}


def add_sums(sums: Sequence[FidSums]) -> FidSums:
    """Add up the sums of disjoint sets of pictures, in order."""
    return {name: sum(one[name] for one in sums) for name in sums[0]}


def fid(sums: Sequence[FidSums], *, min_images: int = FID_MIN_IMAGES) -> Value | Missing:
    """Compute FID of all pictures that were summed up; 0 = equal. The split into sums does not matter."""
    total = add_sums(sums)
    count = int(total["real_features_num_samples"])
    if count < min_images:
        return Missing(f"not computed: needs at least {min_images:,} images for FID, not {count:,}")
    features = torch.nn.Identity()
    features.num_features = len(total["real_features_sum"])
    distance = _frechet(features)
    for name, value in total.items():
        setattr(distance, name, torch.as_tensor(value))
    distance.orig_dtype = torch.float64
    distance._update_count = 1  # compute() warns at 0, the count of a metric whose states were set and not updated
    return Value(float(distance.compute()))


def _frechet(network: nn.Module) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=network)
