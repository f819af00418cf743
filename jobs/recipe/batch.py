"""The tensors that every generator trains on and inpaints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch, in the conventions of all recipes. A paper with other conventions converts them in its own folder.

    image: float32 (N, 3, H, W), RGB in [-1, 1].
    mask: float32 (N, 1, H, W), exactly 0 or 1, 1 = hole. One mask per sample.
    edge: float32 (N, 1, H, W), 0 or 1. Edges of the whole image in training, of the visible pixels in evaluation. None
        unless the recipe lists the column "edge".
    sketch: float32 (N, 1, H, W), 0 or 1, 1 = a line that a person drew; read inside the hole only. None in training,
        and without a drawing. A recipe that reads it lists the column "edge".
    semantics: int64 (N, H, W), class labels of the whole image, 255 = unknown. None in evaluation, and unless the
        recipe lists the column "semantics".
    seed: int64 (N,), one number per sample, from which a recipe draws random numbers. None in evaluation.
    key: N keys of records.
    """

    image: Tensor
    mask: Tensor
    edge: Tensor | None = None
    sketch: Tensor | None = None
    semantics: Tensor | None = None
    seed: Tensor | None = None
    key: tuple[str, ...] = ()

    @classmethod
    def from_bytes(
        cls,
        image: Tensor,
        mask: Tensor,
        maps: Mapping[str, Tensor],
        *,
        seed: Tensor | None = None,
        key: tuple[str, ...] = (),
    ) -> Batch:
        """Build a batch from stored bytes, on the device of the bytes.

        image: uint8 (N, H, W, 3), RGB; [0, 255] becomes [-1, 1], and channels come first.
        mask: uint8 (N, H, W), 1 = hole.
        maps: column, or "sketch" -> uint8 (N, H, W); "edge" and "sketch" are 0 or 255, "semantics" holds labels.
        seed, key: as in the batch.
        """
        converted = dict(maps)
        for name in ("edge", "sketch"):
            if name in maps:
                converted[name] = maps[name][:, None].float() / 255
        if "semantics" in maps:
            converted["semantics"] = maps["semantics"].long()
        return cls(
            image=image.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1,
            mask=mask[:, None].float(),
            seed=seed,
            key=key,
            **converted,
        )

    def uniform(self, purpose: int) -> Tensor:
        """Draw one number in [0, 1) per sample. It depends on the sample's seed and the purpose alone.

        Unlike torch.rand, the result does not depend on the device or on how the global batch is split over processes.
        purpose: a small number. Different uses of random numbers in a recipe need different purposes.
        Returns float32 (N,). Raises ValueError for a batch without seeds.
        """
        if self.seed is None:
            raise ValueError("this batch has no seeds; only training draws random numbers")
        return (_mix(self.seed + _mix(torch.full_like(self.seed, purpose + 1))) >> 40 & 0xFFFFFF) / float(1 << 24)

    def to(self, device: torch.device | str) -> Batch:
        """Copy every tensor to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def channels_last(self) -> Batch:
        """Store the channels of images and masks innermost in memory."""
        return self._map(lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t)

    def micro_batches(self, count: int) -> list[Batch]:
        """Split the batch into `count` micro-batches of equal size.

        Raises ValueError if the number of samples is no multiple of `count`.
        """
        if len(self.image) % count:
            raise ValueError(f"{len(self.image)} samples cannot be split into {count} equal micro-batches")
        if count == 1:
            return [self]
        size = len(self.image) // count
        slices = [slice(start, start + size) for start in range(0, len(self.image), size)]
        return [replace(self._map(lambda t, rows=rows: t[rows]), key=self.key[rows]) for rows in slices]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(t) for name, t in tensors.items() if torch.is_tensor(t)})


def _mix(value: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser (Steele et al., 2014) to int64. Every output bit depends on all input bits."""
    # The factors are the paper's in two's complement. Products wrap on purpose.
    for factor, shift in ((-0x40A7B892E31B1A47, 30), (-0x6B2FB644ECCEEE15, 27)):
        value = (value ^ (value >> shift & (1 << 64 - shift) - 1)) * factor
    return value ^ (value >> 31 & (1 << 33) - 1)
