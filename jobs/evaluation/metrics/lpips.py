"""Learned perceptual image patch similarity, with AlexNet or VGG-16.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1, version 0.1, at the
pictures' own size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from jobs.evaluation.metrics.feature_weights import WeightsError, read_state
from jobs.evaluation.metrics.picture_batches import Pictures, device_batches
from jobs.evaluation.settings import Weights

Trunk = Literal["alex", "vgg"]

ALEXNET = "AlexNet weights (ImageNet)"
VGG16 = "VGG-16 weights (ImageNet)"
_TRUNKS: dict[Trunk, str] = {"alex": "AlexNet", "vgg": "VGG-16"}


def load_lpips(weights: Weights, trunk: Trunk = "alex") -> nn.Module:
    """Load the network of LPIPS 0.1: a trunk from a file, with the linear heads that torchmetrics ships.

    weights: torchvision's ImageNet file `alexnet-owt-7be5be79.pth` or `vgg16-397923af.pth`.
    trunk: which of the two.
    Raises WeightsError for a wrong checksum or content.
    """
    state = read_state(weights)
    # The public class takes no file: its constructor would download the trunk.
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    with torch.random.fork_rng(devices=[]):
        network = _NoTrainLpips(net=trunk, pnet_rand=True)
    try:  # torchvision's features.3.bias is slice2.3.bias here: another prefix, the same number
        trunk_state = {name: state["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
        network.net.load_state_dict(trunk_state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{weights.path}: does not fit {_TRUNKS[trunk]} of torchvision: {error}") from error
    return network


def lpips(real8: Pictures, fake8: Pictures, network: nn.Module, *, batch_size: int = 32) -> np.ndarray:
    """Compute the perceptual distance of each of N pairs of pictures; 0 = equal.

    real8, fake8: true pictures and composites, N each.
    network: `load_lpips(weights)` on any device, or a module that maps two float (N, 3, H, W) in [-1, 1] to N values.
    Returns float64 (N,).
    """
    distances = [np.zeros(0)]
    with torch.no_grad():
        for real, fake in device_batches([real8, fake8], network, batch_size):
            distance = network(real.float() / 127.5 - 1, fake.float() / 127.5 - 1)
            distances.append(distance.flatten().double().cpu().numpy())
    return np.concatenate(distances)
