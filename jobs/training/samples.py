"""The training stream: records, augmentations and holes by position, and each rank's batches of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.shards.column import Column, check_alignment
from datasets.shards.expectation import Expectation
from datasets.stream.augment import Augment
from datasets.stream.plan import Plan, positions
from files.errors import UserError
from files.objects import StoreConfig, StoreError
from files.pictures import decode_image, decode_map
from files.seeds import derive_seed
from jobs.training.byte_batches import ByteBatch, Sample, collate
from jobs.training.settings import SampleConfig
from jobs.training.shared_memory import SlotLoader, allocate_bytes
from masks.hole_ratio import BINS
from masks.masks import open_masks

log = logging.getLogger(__name__)


class TrainingSamples(Dataset):
    """Return the sample at any position of the training stream.

    The record is a function of (seed, position); crop, augmentation and mask are functions of (seed, epoch, key).

    folders: column name -> folder of its manifest and shards, "image" and the recipe's columns.
    config: crop, order, augmentation and masks.
    seed: of the training.
    store: where shards are that are not in the folders.
    digests: column name -> digest that its manifest must have. A column that is not named may have any.

    Raises ManifestError or ShardError if a folder is incomplete or columns do not match; StoreError if the store's
    cache cannot hold the shards that are read at once; MaskFilesError if mask files differ from their declaration.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        config: SampleConfig,
        seed: int,
        store: StoreConfig | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        digests = digests or {}
        num_open = 2 * config.plan.window_shards  # a batch may span two windows
        self.columns = {
            name: Column(
                Path(folder), store=store, keep_shards=num_open, expected=Expectation(digest=digests.get(name))
            )
            for name, folder in folders.items()
        }
        self.images = self.columns["image"]
        for column in self.columns.values():
            if column is not self.images:
                check_alignment(self.images, column)
        if store and store.url:
            _check_cache(self.columns, store, num_open)
        self.config = config
        self.seed = seed
        self.plan = Plan(tuple(self.images.shard_sizes), seed, config.plan)
        semantics = self.columns.get("semantics")
        self._masks = open_masks(config.masks)
        self._augment = Augment(config.augment, semantics.manifest.parameters["mirrored"] if semantics else ())

    def __getitem__(self, position: int) -> Sample:
        return self._make_sample(position, *self._decode_record(position))

    def __getitems__(self, positions: Sequence[int]) -> ByteBatch:
        """Return the batch of several positions: `collate` of their samples."""
        if self.config.crop is None:
            images, records = self.decode(positions)
        else:
            images, records = None, map(self._decode_record, positions)
        samples = [self._make_sample(p, *record) for p, record in zip(positions, records, strict=True)]
        return collate(samples, images)

    def decode(self, positions: Sequence[int]) -> tuple[Tensor, list[tuple[str, dict[str, np.ndarray]]]]:
        """Read and decode the records at N positions.

        Returns a tensor uint8 (N, H, W, 3) of the first image's size, and per position the key and the stored arrays:
        "image" uint8 (H, W, 3), every other column uint8 (H, W). An image of the first one's size is a view of its own
        row of the tensor, so that `collate` need not copy it.
        """
        key, arrays = self._decode_record(positions[0])
        images = allocate_bytes(len(positions), arrays["image"].shape)
        rows = images.numpy()
        rows[0] = arrays["image"]
        records = [(key, {**arrays, "image": rows[0]})]
        records += [self._decode_record(p, row) for p, row in zip(positions[1:], rows[1:], strict=True)]
        return images, records

    def loader(
        self,
        *,
        steps: range,
        batch_size: int,
        rank: int,
        world_size: int,
        num_workers: int,
        prefetch_batches: int = 2,
        pin_memory: bool = False,
    ) -> DataLoader:
        """Return a loader of one rank's batches, as `ByteBatch`, in the order of the steps.

        steps: range of global steps.
        batch_size: global batch, over all ranks.
        num_workers: loader workers; 0 reads in this process. The batches do not depend on it.
        prefetch_batches: how many batches each loader worker reads ahead.
        pin_memory: whether batches arrive in page-locked memory.
        """
        return SlotLoader(
            self,
            batch_sampler=_Steps(steps, batch_size, rank, world_size, self),
            num_workers=num_workers,
            prefetch_factor=prefetch_batches if num_workers else None,
            pin_memory=pin_memory,
        )

    @property
    def is_remote(self) -> bool:
        """Return whether any shard is read from the store."""
        return any(column.is_remote for column in self.columns.values())

    def prefetch(self, epoch: int, window: int) -> None:
        """Bring the shards of a window and of the next one into the cache.

        A failure is logged only: reading the shard will try again and raise.
        """
        for ahead in (0, 1):
            for shard in self.plan.shards(epoch, window + ahead):
                for column in self.columns.values():
                    try:
                        column.prefetch(shard)
                    except StoreError as error:
                        log.warning("%s; it is tried again when it is read", error)

    def _decode_record(self, position: int, out: np.ndarray | None = None) -> tuple[str, dict[str, np.ndarray]]:
        """Return key and stored arrays of one record. out: where to decode an image that has its shape."""
        _, record = self.plan.locate(position)
        arrays = {
            name: decode_image(column.read(record), out) if column is self.images else decode_map(column.read(record))
            for name, column in self.columns.items()
        }
        return self.images.key(record), arrays

    def _make_sample(self, position: int, key: str, arrays: dict[str, np.ndarray]) -> Sample:
        epoch, _ = self.plan.locate(position)
        arrays = self._crop(key, arrays, derive_seed(self.seed, "crop", epoch, key))
        arrays = self._augment(derive_seed(self.seed, "augment", epoch, key), arrays)
        image = arrays.pop("image")
        mask = self._draw_mask(*image.shape[:2], epoch, key)
        seed = derive_seed(self.seed, "draws", epoch, key) >> 1  # a tensor's int64 has a sign
        return Sample(key=key, image=image, mask=mask, maps=arrays, seed=seed)

    def _draw_mask(self, height: int, width: int, epoch: int, key: str) -> np.ndarray:
        seed = derive_seed(self.seed, "mask", epoch, key)
        if self.config.hole_ratios == "kind":
            return self._masks.draw(height, width, seed)
        _, low, high = BINS[derive_seed(self.seed, "bin", epoch, key) % len(BINS)]
        try:
            return self._masks.draw_in_bin(height, width, low, high, seed)
        except UserError as error:
            raise UserError(f"{error}; or set train.samples.hole_ratios to kind") from error

    def _crop(self, key: str, arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        height, width = arrays["image"].shape[:2]
        for name, array in arrays.items():
            if array.shape[:2] != (height, width):
                raise UserError(f"{key}: {name} is {array.shape[1]} x {array.shape[0]}, its image {width} x {height}")
        size = self.config.crop
        if size is None:
            return arrays
        if min(height, width) < size:
            raise UserError(f"{key} is {width} x {height} pixels, less than train.samples.crop = {size}; lower it")
        top, left = np.random.Generator(np.random.PCG64(seed)).integers((height - size + 1, width - size + 1))
        return {name: array[top : top + size, left : left + size] for name, array in arrays.items()}


def _check_cache(columns: Mapping[str, Column], store: StoreConfig, num_open: int) -> None:
    largest = (sorted((shard.bytes for shard in column.manifest.shards), reverse=True) for column in columns.values())
    needed = sum(sum(sizes[:num_open]) for sizes in largest)
    if needed > store.cache_bytes:
        raise StoreError(
            f"store.cache_bytes is {store.cache_bytes}, but {num_open} shards of {', '.join(columns)}, which are read "
            f"at once, may take {needed} bytes; raise it or lower train.samples.plan.window_shards"
        )


@dataclass(frozen=True)
class _Steps:
    """Yield the positions that one rank reads at each step.

    When the stream enters another window of remote shards, a thread fetches its shards and those of the next one.
    """

    steps: range
    batch_size: int
    rank: int
    world_size: int
    samples: TrainingSamples

    def __iter__(self) -> Iterator[Sequence[int]]:
        fetched, thread = None, None
        for step in self.steps:
            step_positions = positions(step, self.batch_size, rank=self.rank, world_size=self.world_size)
            window = self.samples.plan.window(step_positions[-1])
            if self.samples.is_remote and fetched != window and not (thread and thread.is_alive()):
                fetched = window
                thread = threading.Thread(target=self.samples.prefetch, args=window, daemon=True)
                thread.start()
            yield step_positions

    def __len__(self) -> int:
        return len(self.steps)
