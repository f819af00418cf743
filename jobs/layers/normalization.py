"""Normalisations that PyTorch lacks in the form or at the speed that the papers need."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from files.errors import UserError
from jobs.layers.gpu_batch_norm import NormaliseOnGpu
from jobs.recipe.collectives import all_sum, num_processes
from jobs.recipe.precision import wide_dtype


class BatchNorm2d(nn.BatchNorm2d):
    """Normalise by the statistics of the global batch. The result does not depend on how many processes share it.

    Ioffe and Szegedy, "Batch Normalization", 2015. In one process, and in eval mode, it equals PyTorch's own to the
    bit. With several processes it computes by nn.SyncBatchNorm's kernels on GPUs, by operations of its own on CPUs.
    Parameters, buffers and their names are PyTorch's. It cannot be differentiated twice where several processes train.

    forward(features):
        features: (N, C, H, W), any range.
    Returns the same shape.
    Raises UserError if it trains on a single value per channel, which has no variance.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or num_processes() == 1:
            if self.training and features.numel() == features.shape[1]:
                raise UserError(
                    f"batch norm cannot train on one value per channel, got {tuple(features.shape)}; "
                    "raise batch_size to 2 or more"
                )
            return super().forward(features)
        if features.is_cuda:
            self.num_batches_tracked += 1
            return NormaliseOnGpu.apply(
                features, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
            )
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(dtype)
            mean, variance, count = _global_statistics(wide.detach())
            self._remember(mean, variance * count / (count - 1))
            normalised = _Normalise.apply(wide, self.weight, self.bias, mean, variance, count, self.eps)
        return normalised.to(features.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class TwiceDifferentiableBatchNorm2d(BatchNorm2d):
    """Normalise as `BatchNorm2d` does, by operations whose gradient can be differentiated again.

    A penalty on the gradient of a discriminator (R1) needs it where several processes train. It takes more memory and
    messages than `BatchNorm2d`; in one process the two are the same.

    forward(features):
        features: (N, C, H, W), any range.
    Returns the same shape.
    Raises UserError if it trains on a single value per channel, which has no variance.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or num_processes() == 1:
            return super().forward(features)
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            wide = features.to(dtype)
            count = wide.new_full((1,), num_processes() * wide.numel() // wide.shape[1])  # all have equal shares
            mean = all_sum(wide.sum((0, 2, 3))) / count
            centred = wide - mean[:, None, None]
            variance = all_sum(centred.square().sum((0, 2, 3))) / count
            self._remember(mean.detach(), variance.detach() * count / (count - 1))
            scale = self.weight * torch.rsqrt(variance + self.eps)
            normalised = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(features.dtype)


def _global_statistics(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and biased variance of every channel over all processes, (C,) each, and their number of values."""
    # The kernel of PyTorch's own batch norm, several times faster on a CPU than torch.var_mean.
    mean, variance = torch.batch_norm_update_stats(features, None, None, 0.0)
    # In double precision, so that the difference of squares below loses nothing. All sums are sent in one message.
    mean, variance = mean.double(), variance.double()
    count = mean.new_full((1,), features.numel() // features.shape[1])
    count, total, squares = all_sum(torch.cat((count, count * mean, count * (variance + mean.square())))).split(
        (1, len(mean), len(mean))
    )
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    return mean.to(features.dtype), variance.to(features.dtype), count.to(features.dtype)


class _Normalise(torch.autograd.Function):
    """Compute (x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on x.

    PyTorch's kernels for constant statistics compute the values and the direct gradient. The gradient through the
    statistics, linear in x, is added to it.
    """

    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(features, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, variance, count = ctx.saved_tensors
        direct, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(), features, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # dx = s (dy - mean(dy) - x^ mean(dy x^)), where s = weight / deviation, x^ is the normalised x, and the means
        # are over all processes.
        of_gradient, of_product = (all_sum(torch.cat((by_bias, by_weight))) / count).chunk(2)
        deviation = torch.rsqrt(variance + ctx.eps)
        slope = -weight * deviation.square() * of_product
        offset = -weight * deviation * of_gradient - slope * mean
        through_statistics = torch.addcmul(offset[:, None, None], features, slope[:, None, None])
        return direct + through_statistics, by_weight, by_bias, None, None, None, None


class InstanceNorm2d(nn.InstanceNorm2d):
    """Normalise every channel of every sample by its own statistics, in half the time of PyTorch's layer.

    Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016. It is a group norm with
    one channel per group, whose kernel is the faster one. Parameters and their names are PyTorch's. There are no
    running statistics.

    forward(features):
        features: (N, C, H, W), any range.
    Returns the same shape.
    Raises UserError for a single value per channel, which has no variance.
    """

    def forward(self, features: Tensor) -> Tensor:
        if features[0, 0].numel() == 1:
            raise UserError(f"instance norm needs more than one value per channel, got {tuple(features.shape)}")
        samples, channels, height, width = features.shape
        weight, bias = (None if p is None else p.to(features.dtype) for p in (self.weight, self.bias))
        # Not F.group_norm, which autocast would compute and return in float32. The kernel sums in float32 in any case.
        return torch.native_group_norm(
            features.contiguous(), weight, bias, samples, channels, height * width, channels, self.eps
        )[0]


class SPADE(nn.Module):
    """Normalise per sample and channel, then scale and shift every place by values computed from a map.

    Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR 2019, Eq. 1, with instance
    normalisation: norm(x) * (1 + gamma(map)) + beta(map).

    hidden: channels of the convolution that gamma and beta share.

    forward(features, layout):
        features: (N, channels, H, W), any range.
        layout: the map, (N, map_channels, H, W).
    Returns (N, channels, H, W).
    """

    def __init__(self, channels: int, map_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = InstanceNorm2d(channels)
        self.shared = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, features: Tensor, layout: Tensor) -> Tensor:
        hidden = F.relu(self.shared(layout))
        # Eq. 1
        return self.norm(features) * (1 + self.gamma(hidden)) + self.beta(hidden)
