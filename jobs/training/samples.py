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
from datasets.stream.augment import Augment
from datasets.stream.plan import Plan, positions
from files.errors import UserError
from files.objects import StoreConfig, StoreError
from files.pictures import decode_image, decode_map
from files.seeds import derive_seed
from jobs.training.byte_batches import ByteBatch, Handed, Sample, byte_block, collate
from jobs.training.settings import SampleConfig
from jobs.training.shared_memory import Slots, slots_for, worker_slots
from masks.masks import open_masks

log = logging.getLogger(__name__)


class TrainingSamples(Dataset):
    """The training stream by position: record, crop, augmentation and mask are functions of (seed, epoch, key) alone.

    folders: column name -> folder of its shards; "image" and whatever the recipe needs. store: where shards lie that
    do not lie in those folders.
    Raises ManifestError or ShardError when a folder is incomplete or columns do not belong together; StoreError when
    the store's cache cannot hold the shards that are read at once; MaskFilesError when the masks are files and not as
    declared.
    """

    def __init__(
        self, folders: Mapping[str, Path], config: SampleConfig, seed: int, store: StoreConfig | None = None
    ) -> None:
        at_once = 2 * config.plan.window_shards  # a batch may lie in two windows
        self.columns = {
            name: Column(Path(folder), store=store, keep_shards=at_once) for name, folder in folders.items()
        }
        self.images = self.columns["image"]
        for column in self.columns.values():
            if column is not self.images:
                check_alignment(self.images, column)
        if store and store.url:
            _check_cache(self.columns, store, at_once)
        self.config = config
        self.seed = seed
        self.plan = Plan(tuple(self.images.shard_sizes), seed, config.plan)
        semantics = self.columns.get("semantics")
        self._masks = open_masks(config.masks)
        self._augment = Augment(config.augment, semantics.manifest.parameters["mirrored"] if semantics else ())

    def __getitem__(self, position: int) -> Sample:
        return self._sample(position, *self._decoded(position))

    def __getitems__(self, positions: Sequence[int]) -> ByteBatch:
        """The batch of several positions, as `collate` makes it of them one by one."""
        cropped = self.config.crop is not None
        images, records = (None, map(self._decoded, positions)) if cropped else self.decoded(positions)
        return collate([self._sample(p, *record) for p, record in zip(positions, records, strict=True)], images)

    def decoded(self, positions: Sequence[int]) -> tuple[Tensor, list[tuple[str, dict[str, np.ndarray]]]]:
        """Key and stored arrays of some positions: "image" uint8 (H, W, 3), every other column uint8 (H, W).

        And the tensor, uint8 (N, H, W, 3), in which the images lie, each at its place, that have the size of the first;
        so decoded, a batch need not be copied together.
        """
        first = self._decoded(positions[0])
        images = byte_block(len(positions), first[1]["image"].shape)
        places = images.numpy()
        places[0] = first[1]["image"]
        first[1]["image"] = places[0]
        return images, [first, *(self._decoded(p, out) for p, out in zip(positions[1:], places[1:], strict=True))]

    def _sample(self, position: int, key: str, arrays: dict[str, np.ndarray]) -> Sample:
        epoch, _ = self.plan.locate(position)
        arrays = self._cropped(key, arrays, derive_seed(self.seed, "crop", epoch, key))
        arrays = self._augment(derive_seed(self.seed, "augment", epoch, key), arrays)
        image = arrays.pop("image")
        mask = self._masks.draw(*image.shape[:2], derive_seed(self.seed, "mask", epoch, key))
        draws = derive_seed(self.seed, "draws", epoch, key) >> 1  # a tensor's int64 has a sign
        return Sample(key=key, image=image, mask=mask, maps=arrays, seed=draws)

    def _decoded(self, position: int, out: np.ndarray | None = None) -> tuple[str, dict[str, np.ndarray]]:
        _, record = self.plan.locate(position)
        arrays = {
            name: decode_image(column.read(record), out) if column is self.images else decode_map(column.read(record))
            for name, column in self.columns.items()
        }
        return self.images.key(record), arrays

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
        """This rank's batches, as bytes, for a range of global steps, in order; the number of loader workers changes
        nothing. prefetch_batches: how many batches each of them is ahead."""
        return _Loader(
            _Lending(self),
            batch_sampler=_Steps(steps, batch_size, rank, world_size, self),
            collate_fn=_hand_over,
            num_workers=num_workers,
            prefetch_factor=prefetch_batches if num_workers else None,
            pin_memory=pin_memory,
        )

    @property
    def is_remote(self) -> bool:
        """Whether any shard is read from the store."""
        return any(column.is_remote for column in self.columns.values())

    def prefetch(self, epoch: int, window: int) -> None:
        """Bring the shards of a window and of the next one into the cache; a failure is left to whoever reads them."""
        for ahead in (0, 1):
            for shard in self.plan.shards(epoch, window + ahead):
                for column in self.columns.values():
                    try:
                        column.prefetch(shard)
                    except StoreError as error:
                        log.warning("%s; it is tried again when it is read", error)

    def _cropped(self, key: str, arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
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


def _check_cache(columns: Mapping[str, Column], store: StoreConfig, at_once: int) -> None:
    largest = (sorted((shard.bytes for shard in column.manifest.shards), reverse=True) for column in columns.values())
    needed = sum(sum(sizes[:at_once]) for sizes in largest)
    if needed > store.cache_bytes:
        raise StoreError(
            f"store.cache_bytes is {store.cache_bytes}, but {at_once} shards of {', '.join(columns)}, which are read "
            f"at once, may take {needed} bytes; raise it or lower train.samples.plan.window_shards"
        )


class _Lending(Dataset):
    """Samples in batches, in the slots of the workers that read them."""

    def __init__(self, samples: TrainingSamples) -> None:
        self.samples = samples
        self.slots: Slots | None = None

    def __getitems__(self, positions: Sequence[int]) -> ByteBatch:
        return self.samples.__getitems__(positions)


class _Loader(DataLoader):
    """A loader of which every set of workers has slots of its own, as long as it lives."""

    def __iter__(self) -> Iterator[ByteBatch]:
        slots = self.dataset.slots = slots_for(self.num_workers)
        batches = super().__iter__()
        batches.slots = slots
        return batches


def _hand_over(batch: ByteBatch) -> ByteBatch | Handed:
    """The collate function of a data set that gives whole batches; picklable."""
    slots = worker_slots()
    return Handed(batch, slots) if slots else batch


@dataclass(frozen=True)
class _Steps:
    """The batch sampler of a DataLoader: the positions of each step; the shards of the next window are fetched while
    this one is read."""

    steps: range
    batch_size: int
    rank: int
    world_size: int
    samples: TrainingSamples

    def __iter__(self) -> Iterator[Sequence[int]]:
        seen, fetching = None, None
        for step in self.steps:
            ours = positions(step, self.batch_size, rank=self.rank, world_size=self.world_size)
            epoch, window = self.samples.plan.window(ours[-1])
            if self.samples.is_remote and seen != (epoch, window) and not (fetching and fetching.is_alive()):
                seen = (epoch, window)
                fetching = threading.Thread(target=self.samples.prefetch, args=seen, daemon=True)
                fetching.start()
            yield ours

    def __len__(self) -> int:
        return len(self.steps)
