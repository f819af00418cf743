"""The tensors that every generator trains on and inpaints: the one place where records meet masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.augment import Augment
from datasets.edges import EdgeConfig, canny_edges
from datasets.plan import Plan, derive_seed, positions
from datasets.shards import Column, check_alignment
from jobs.settings import SampleConfig
from masks.sampler import draw_mask


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


def decode_image(content: bytes) -> np.ndarray:
    """Stored image to uint8 (H, W, 3) RGB. Bytes come from `Column.read`, hence passed ingest and their digest."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_map(content: bytes) -> np.ndarray:
    """Stored label map, edge map or mask to uint8 (H, W); edges and masks are stored as 0 and 255."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)


class TrainingSamples(Dataset):
    """The training stream by position: record, augmentation and mask are functions of (seed, epoch, key) alone.

    folders: column name -> folder of its shards; "image" and whatever the recipe needs.
    Raises ManifestError or ShardError when a folder is incomplete or columns do not belong together.
    """

    def __init__(self, folders: Mapping[str, Path], config: SampleConfig, seed: int) -> None:
        self.columns = {name: Column(Path(folder)) for name, folder in folders.items()}
        self.images = self.columns["image"]
        for column in self.columns.values():
            if column is not self.images:
                check_alignment(self.images, column)
        self.config = config
        self.seed = seed
        self.plan = Plan(tuple(self.images.shard_sizes), seed, config.plan)
        self._augment = Augment(config.augment)

    def __getitem__(self, position: int) -> Sample:
        epoch, record = self.plan.locate(position)
        key = self.images.keys[record].as_py()
        maps = {
            name: decode_map(column.read(record)) // 255
            for name, column in self.columns.items()
            if column is not self.images
        }
        arrays = {"image": decode_image(self.images.read(record)), **maps}
        arrays = self._augment(derive_seed(self.seed, "augment", epoch, key), arrays)
        image = arrays.pop("image")
        mask = draw_mask(self.config.masks, *image.shape[:2], derive_seed(self.seed, "mask", epoch, key))
        return Sample(key=key, image=image, mask=mask, maps=arrays)

    def loader(
        self, *, steps: range, batch_size: int, rank: int, world_size: int, num_workers: int, pin_memory: bool = False
    ) -> DataLoader:
        """This rank's batches for a range of global steps, in order; the number of loader workers changes nothing."""
        return DataLoader(
            self,
            batch_sampler=_Steps(steps, batch_size, rank, world_size),
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=False,
            pin_memory=pin_memory,
        )


@dataclass(frozen=True)
class _Steps:
    """The batch sampler of a DataLoader: the positions of each step."""

    steps: range
    batch_size: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Sequence[int]]:
        for step in self.steps:
            yield positions(step, self.batch_size, rank=self.rank, world_size=self.world_size)

    def __len__(self) -> int:
        return len(self.steps)
