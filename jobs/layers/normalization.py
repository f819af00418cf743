"""Normalisations that PyTorch does not have in the form the papers need."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.collectives import all_sum, num_processes


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the global batch: the result does not depend on how many processes share it.

    Ioffe and Szegedy, "Batch Normalization", 2015. In one process, and in eval mode, it is PyTorch's own, to the bit;
    parameters, buffers and their names are the same. Unlike nn.SyncBatchNorm it also runs on a CPU.
    forward(features): (N, C, H, W), any range. Returns the same shape.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or num_processes() == 1:
            return super().forward(features)
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(dtype)
            count = all_sum(wide.new_tensor(wide.numel() / wide.shape[1]))
            mean = all_sum(wide.sum((0, 2, 3))) / count
            centred = wide - mean[:, None, None]
            variance = all_sum(centred.square().sum((0, 2, 3))) / count
            self._remember(mean.detach(), (variance * count / (count - 1)).detach())
            scale = torch.rsqrt(variance + self.eps)
            if self.affine:
                scale = scale * self.weight
            normalised = centred * scale[:, None, None]
            if self.affine:
                normalised = normalised + self.bias[:, None, None]
        return normalised.to(features.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.track_running_stats:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class SPADE(nn.Module):
    """Normalise per sample and channel, then scale and shift place by place as a map says.

    Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR 2019, Eq. 1, with instance
    normalisation: norm(x) * (1 + gamma(map)) + beta(map).
    forward(features, layout): (N, channels, H, W), any range, and (N, map_channels, H, W), at the same size.
    Returns (N, channels, H, W).
    """

    def __init__(self, channels: int, map_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, features: Tensor, layout: Tensor) -> Tensor:
        hidden = F.relu(self.shared(layout))
        return self.norm(features) * (1 + self.gamma(hidden)) + self.beta(hidden)
