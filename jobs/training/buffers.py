"""Copies of tensors that can be put back without a look of the host at the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def by_dtype(buffers: Iterable[Tensor]) -> list[list[Tensor]]:
    """Divide tensors into lists of one type each."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for buffer in buffers:
        groups.setdefault(buffer.dtype, []).append(buffer)
    return list(groups.values())


class BufferCopies:
    """Copies of some buffers of one type, in one tensor, so that a few kernels copy all of them.

    buffers: at least one, on one device.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._buffers = buffers
        self._sizes = [buffer.numel() for buffer in buffers]
        self._copy = self._flat()

    def take(self) -> None:
        """Copy the present buffers."""
        self._copy = self._flat()

    def put_back_if(self, condition: Tensor) -> None:
        """Set the buffers to the last copies if a scalar on their device is not 0."""
        chosen = torch.where(condition > 0, self._copy, self._flat()).split(self._sizes)
        torch._foreach_copy_(
            self._buffers, [new.view(buffer.shape) for new, buffer in zip(chosen, self._buffers, strict=True)]
        )

    def _flat(self) -> Tensor:
        return torch.cat([buffer.reshape(-1) for buffer in self._buffers])


@torch.no_grad()
def step_unless(optimizer: torch.optim.Optimizer, condition: Tensor) -> None:
    """Step an optimizer, and put back what it has changed on the device of a scalar if that is not 0.

    optimizer: has stepped before, so that its state exists.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [value for state in optimizer.state.values() for value in state.values()]
    changed = [t for t in (*parameters, *states) if isinstance(t, Tensor) and t.device == condition.device]
    before = [BufferCopies(tensors) for tensors in by_dtype(changed)]
    optimizer.step()
    for copies in before:
        copies.put_back_if(condition)
