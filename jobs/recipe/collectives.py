"""Sums over all processes of one training.

The training loop averages gradients over processes, and every process has an equal share of the global batch. A plain
mean over samples needs nothing more. Two kinds of loss do: a quotient whose denominator depends on the batch (use
`ratio`), and a statistic of the batch inside a loss (use `global_mean`). They make the loss independent of the number
of processes. In one process they communicate nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def num_processes() -> int:
    """Return how many processes train together, 1 outside a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_sum(value: Tensor) -> Tensor:
    """Sum a tensor of any shape over all processes. The gradient is the sum of all processes' gradients."""
    return value if num_processes() == 1 else _AllSum.apply(value)


def global_mean(value: Tensor) -> Tensor:
    """Average all elements of all processes' tensors, which have equally many. Returns a scalar."""
    return all_sum(value.mean()) / num_processes()


def ratio(numerator: Tensor, denominator: Tensor, *, at_least: float) -> Tensor:
    """Divide a sum over all processes by another one.

    numerator, denominator: scalars of this process. The denominator gets no gradient.
    at_least: lower bound of the summed denominator.
    Returns a loss whose mean over processes is sum(numerator) / max(sum(denominator), at_least).
    """
    return num_processes() * numerator / all_sum(denominator.detach()).clamp_min(at_least)


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return all_sum(gradient)
