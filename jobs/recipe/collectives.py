"""Sums over all processes of one training: a loss or a statistic then does not depend on how many processes there are.

The loop averages gradients over processes, each of which holds an equal part of the global batch. A plain mean over
samples needs nothing more. A quotient whose denominator depends on the batch, or a statistic of the batch inside a
loss, does: take `ratio` or `global_mean`. In one process both are what they say, without any communication.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def num_processes() -> int:
    """How many processes train together; 1 outside a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_sum(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, any shape; the gradient is the sum of all processes' gradients."""
    return value if num_processes() == 1 else _AllSum.apply(value)


def global_mean(value: Tensor) -> Tensor:
    """The mean over all elements of all processes' `value`, a scalar; each process holds equally many."""
    return all_sum(value.mean()) / num_processes()


def ratio(numerator: Tensor, denominator: Tensor, *, at_least: float) -> Tensor:
    """A loss whose mean over processes is sum(numerator) / max(sum(denominator), at_least), both over all processes.

    numerator, denominator: scalars of this process; the denominator gets no gradient.
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
