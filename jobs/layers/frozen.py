"""Feature networks of losses, which are not trained: what all have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

_made: ContextVar[list[FrozenNetwork] | None] = ContextVar("made", default=None)


class FrozenNetwork(nn.Module):
    """Base of feature networks: always in eval mode, and moved to the device of their input.

    Gradients flow to the image; a subclass ends its `__init__` with `self.eval().requires_grad_(False)`. Such a network
    is not among a recipe's networks, so it is neither trained, saved nor moved with them.

    compute(image): implemented by the subclass; returns the features.
    """

    compute: Callable[[Tensor], Any]

    def __init__(self) -> None:
        super().__init__()
        self._compute = self.compute
        if (made := _made.get()) is not None:
            made.append(self)

    def forward(self, image: Tensor) -> Any:
        self.to(image.device)  # not compiled: it changes the parameters
        return self._compute(image)

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile `compute`; arguments as of `torch.compile`."""
        self._compute = torch.compile(self.compute, *arguments, **options)

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stay in eval mode."""
        return super().train(False)


@contextlib.contextmanager
def collect_frozen_networks() -> Iterator[list[FrozenNetwork]]:
    """Yield a list that receives every network that is made until the context ends."""
    made: list[FrozenNetwork] = []
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)
