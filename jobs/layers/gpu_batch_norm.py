"""Batch norm over several processes on GPUs: the kernels and messages of nn.SyncBatchNorm.

That layer looks for processes without samples, for which the host waits at every layer, and DistributedDataParallel
refuses it on a CPU. Here all processes have equally many samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from jobs.recipe.collectives import num_processes


class NormaliseOnGpu(torch.autograd.Function):
    """Normalise by the statistics of all processes, and update the running ones.

    One message is sent forward and one backward. Statistics are float32 for features of half precision.
    """

    @staticmethod
    def forward(
        ctx,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        features = _dense(features)
        own = torch.cat(torch.batch_norm_stats(features, eps))  # mean and 1 / deviation, (2 C,)
        everyones = own.new_empty(num_processes(), len(own))
        distributed.all_gather_into_tensor(everyones, own)
        means, inverses = everyones.chunk(2, dim=1)
        counts = own.new_full((num_processes(),), features.numel() // features.shape[1])
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            features, means, inverses, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(features, weight, mean, inverse, counts.to(torch.int32))
        return torch.batch_norm_elemt(features, weight, bias, mean, inverse, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, inverse, counts = ctx.saved_tensors
        gradient = _dense(gradient)
        total, product, by_weight, by_bias = torch.batch_norm_backward_reduce(
            gradient, features, mean, inverse, weight, True, *ctx.needs_input_grad[1:3]
        )
        sums = torch.cat((total, product))
        distributed.all_reduce(sums)
        total, product = sums.chunk(2)
        by_features = torch.batch_norm_backward_elemt(gradient, features, mean, inverse, weight, total, product, counts)
        return by_features, by_weight, by_bias, None, None, None, None


def _dense(features: Tensor) -> Tensor:
    """Return features without gaps in memory, with channels innermost if they are so."""
    return features if features.is_contiguous(memory_format=torch.channels_last) else features.contiguous()
