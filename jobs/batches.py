"""The tensors that every generator trains on and inpaints: the one place where images meet masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from datasets.edges import EdgeConfig, canny_edges


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

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, which a GPU copies from without waiting."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: t.pin_memory() for n, t in tensors.items() if torch.is_tensor(t)})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record with its hole, as on disk: image uint8 (H, W, 3), mask uint8 (H, W), maps uint8 (H, W), by column."""

    key: str
    image: np.ndarray
    mask: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


def collate(samples: Sequence[Sample]) -> Batch:
    """Bytes to tensors: [0, 255] to [-1, 1], channels first, a batch of all samples."""
    images = np.ascontiguousarray(np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2))
    maps = {
        name: torch.from_numpy(np.stack([sample.maps[name] for sample in samples])[:, None]).float()
        for name in samples[0].maps
    }
    return Batch(
        image=torch.from_numpy(images).float() / 127.5 - 1,
        mask=torch.from_numpy(np.stack([sample.mask for sample in samples])[:, None]).float(),
        key=tuple(sample.key for sample in samples),
        **maps,
    )


def visible_batch(
    images: np.ndarray, masks: np.ndarray, keys: Sequence[str], *, columns: Sequence[str], edges: EdgeConfig
) -> Batch:
    """A batch to inpaint, made of what can be seen: hidden pixels are blanked before anything is derived from them.

    images: uint8 (N, H, W, 3); masks: uint8 (N, H, W), 1 = hole; columns: what the recipe needs.
    Raises ValueError for a column that cannot be derived from a damaged image.
    """
    if unknown := set(columns) - {"edge"}:
        raise ValueError(f"column {min(unknown)} cannot be made from an image with holes")
    visible = images * (1 - masks[..., None])
    return collate(
        [
            Sample(
                key=key,
                image=image,
                mask=mask,
                maps={"edge": canny_edges(image, edges, valid=mask == 0)} if "edge" in columns else {},
            )
            for key, image, mask in zip(keys, visible, masks, strict=True)
        ]
    )
