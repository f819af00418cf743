"""The moving average of a network's weights, which is used in their place after training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """Average a network's parameters and running statistics over its updates, and copy its other buffers.

    Without an average of their own, the running means and variances of batch norms would be those of other weights.
    Update n, counted from 0, keeps the share min(decay, n / (9 + n)) of the average, so that the first weights are soon
    forgotten. TensorFlow's ExponentialMovingAverage does the same with `num_updates`. An update that was not applied
    counts as one that changed no weight.

    network: copied into `module`, the average.
    decay: share of the average that an update keeps in the long run, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's weights into the average."""
        num = int(self.n_averaged)
        share = min(self._decay, num / (9 + num))
        averages, copies = _tensors(self.module)
        new, others = _tensors(network)
        torch._foreach_lerp_(averages, new, 1 - share)
        for own, other in zip(copies, others, strict=True):
            own.copy_(other)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors to average, and those to copy."""
    buffers = dict(network.named_buffers())
    statistics = [name for name in buffers if name.endswith(("running_mean", "running_var"))]
    return (
        [*network.parameters(), *(buffers[name] for name in statistics)],
        [buffer for name, buffer in buffers.items() if name not in statistics],
    )
