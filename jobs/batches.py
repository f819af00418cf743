"""The tensors that every generator trains on and inpaints: the one place where records meet masks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch in the conventions every paper is converted to at its own door.

    image: float32 (N, 3, H, W), RGB in [-1, 1].
    mask: float32 (N, 1, H, W), exactly 0 or 1, 1 = hole. One mask per sample.
    edge: float32 (N, 1, H, W), 0 or 1, edges of the whole image in training, of the visible part in evaluation;
        None unless the recipe lists the column "edge".
    key: the records' keys, N of them.
    """

    image: Tensor
    mask: Tensor
    edge: Tensor | None = None
    key: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on the device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: t.to(device, non_blocking=True) for n, t in tensors.items() if torch.is_tensor(t)})
