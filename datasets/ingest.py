"""Source images to image shards: decode once, fit to size, encode, and say why what could not be used was rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from datasets.shards.manifest import Rejected
from datasets.sources import SourceImage
from datasets.tombstones import StayOut
from datasets.writing.parts import ShardContent
from datasets.writing.tars import NewRecord, even_sizes
from files.archives import MemberError, read_many
from files.pictures import (
    MINIMUM_SIDE,
    FitRule,
    RejectedImageError,
    decode,
    difference_hash,
    encode_jpeg,
    encode_png,
    fit,
    fits_as_it_is,
)
from files.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What stored images are.

    size: side of the stored square, in pixels; the shorter side with the rule "shorter", the least side with "keep".
    rule: "crop" resizes the shorter side and crops the centre; "squash" ignores the aspect ratio; "cut" crops the
    centre and resizes nothing; "shorter" resizes the shorter side; "keep" changes nothing. The last two leave images
    of unequal sizes.
    format: "png", or "jpeg" with 4:4:4 chroma; every split but train is PNG.
    jpeg_quality: of libjpeg, 1 to 100.
    keep_source: store the source's own bytes where they have that format and nothing of the picture has to change.
    records_per_shard: the most records of one shard; shards of a split differ by one record at most.
    max_rejected: share of unusable sources above which the stage stops.
    """

    size: int = 256
    rule: FitRule = "crop"
    format: Literal["png", "jpeg"] = "jpeg"
    jpeg_quality: int = 95
    keep_source: bool = False
    records_per_shard: int = 1024
    max_rejected: float = 0.01

    def __post_init__(self) -> None:
        if self.size < MINIMUM_SIDE:
            raise ValueError(f"size must be {MINIMUM_SIDE} or more, got {self.size}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 1..100, got {self.jpeg_quality}")
        if self.records_per_shard < 1:
            raise ValueError(f"records_per_shard must be positive, got {self.records_per_shard}")
        if not 0 <= self.max_rejected < 1:
            raise ValueError(f"max_rejected is a share in [0, 1), got {self.max_rejected}")


def plan_shards(
    images: Sequence[SourceImage], split: str, config: IngestConfig, stay_out: StayOut
) -> list[IngestedShard]:
    """Which images of one split go to which shard, in which order, before the first of them is read.

    Without regard to what stays out, so that a record that is taken down moves no other to another shard.
    """
    ours = shuffled([image for image in images if image.split == split])
    contents, start = [], 0
    for size in even_sizes(len(ours), config.records_per_shard):
        sources = tuple(ours[start : start + size])
        contents.append(IngestedShard(split=split, sources=sources, config=config, stay_out=stay_out))
        start += size
    return contents


def shuffled(images: Sequence[SourceImage]) -> list[SourceImage]:
    """The order in which records stand in shards: by a hash of the key, so that shards mix classes and removing one
    image moves no other past another."""
    return sorted(images, key=lambda image: (derive_seed("shard order", image.key), image.key))


@dataclass(frozen=True, kw_only=True)
class IngestedShard(ShardContent):
    """The images of one shard, in order, and what of these stays out."""

    split: str
    sources: tuple[SourceImage, ...]
    config: IngestConfig
    stay_out: StayOut

    @property
    def num_sources(self) -> int:
        return len(self.sources)

    @property
    def inputs(self) -> Any:
        # How many images may be unusable, and how many there are elsewhere, changes nothing in this shard.
        return self.split, self.sources, replace(self.config, max_rejected=0.0, records_per_shard=1), self.stay_out

    def samples(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        sources = []
        for source in self.sources:
            if status := self.stay_out.status(source.key):
                rejected.append(Rejected(name=source.name, reason=status))
            else:
                sources.append(source)
        contents = read_many(source.locator for source in sources)
        for source, content in zip(sources, contents, strict=True):
            try:
                if isinstance(content, MemberError):
                    raise content
                digest = hashlib.sha256(content).digest()
                if status := self.stay_out.status(source.key, digest):
                    rejected.append(Rejected(name=source.name, reason=status))
                    continue
                image = fit(decode(content), self.config.size, self.config.rule, crop=source.crop)
            except (MemberError, RejectedImageError) as error:
                rejected.append(Rejected(name=source.name, reason=error.reason))
                continue
            yield NewRecord(
                key=source.key,
                members=self._encoded(content, image),
                about={
                    "source": source.name,
                    "source_sha256": digest,
                    "width": image.shape[1],
                    "height": image.shape[0],
                    "label": source.label,
                    "group": source.group,
                    "dhash": difference_hash(image),
                },
            )

    def _encoded(self, content: bytes, image: np.ndarray) -> dict[str, bytes]:
        """The stored member; all of a split have one suffix, kept sources among them."""
        lossless = self.config.format == "png" or self.split != "train"
        if self.config.keep_source and fits_as_it_is(content, image, "PNG" if lossless else "JPEG"):
            encoded = content
        else:
            encoded = encode_png(image) if lossless else encode_jpeg(image, self.config.jpeg_quality)
        return {"png" if lossless else "jpg": encoded}
