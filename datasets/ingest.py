"""Source images to records: decode once, fit to size, encode, and list each unusable image with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from datasets.shards.manifest import Rejected
from datasets.sources import SourceImage
from datasets.tombstones import StayOut
from datasets.writing.shard_tasks import ShardContent
from datasets.writing.tars import NewRecord, even_sizes
from files.archives import MemberError, read_many
from files.picture_formats import format_by_name
from files.pictures import (
    FORMATS,
    MINIMUM_SIDE,
    NO_IMAGE,
    FitRule,
    RejectedImageError,
    can_store_unchanged,
    decode_with_note,
    difference_hash,
    encode_jpeg,
    encode_png,
    fit,
)
from files.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Settings of the stored images.

    size: in pixels, the side of the stored square; with the rule "shorter" the shorter side, with "keep" the least
        side that is accepted.
    rule: "crop" resizes the shorter side and crops the centre; "squash" ignores the aspect ratio; "cut" crops the
        centre without resizing; "shorter" resizes the shorter side; "keep" changes nothing. "shorter" and "keep" give
        images of different sizes.
    format: format of the split train: "png", or "jpeg" with 4:4:4 sampling. Every other split is PNG.
    jpeg_quality: in 1..100.
    keep_source: store the source's own bytes if they have that format and the picture needs no change.
    records_per_shard: most records of a shard.
    max_rejected: share of unusable sources, in [0, 1), above which the stage stops.
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
            raise ValueError(f"jpeg_quality must be in 1..100, got {self.jpeg_quality}")
        if self.records_per_shard < 1:
            raise ValueError(f"records_per_shard must be positive, got {self.records_per_shard}")
        if not 0 <= self.max_rejected < 1:
            raise ValueError(f"max_rejected is a share in [0, 1), got {self.max_rejected}")


def plan_shards(
    images: Sequence[SourceImage], split: str, config: IngestConfig, stay_out: StayOut
) -> list[IngestedShard]:
    """Distribute the images of one split over shards, before any image is read.

    images: of all splits.
    stay_out: records to leave out. They keep their place in the plan, so that taking down one record moves no other
        record to another shard.
    Returns the content of each shard, in order.
    """
    split_images = _shuffle([image for image in images if image.split == split])
    contents, start = [], 0
    for size in even_sizes(len(split_images), config.records_per_shard):
        sources = tuple(split_images[start : start + size])
        contents.append(IngestedShard(split=split, sources=sources, config=config, stay_out=stay_out))
        start += size
    return contents


def _shuffle(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Sort images by a hash of their key: shards mix classes, and removing one image keeps the order of the others."""
    return sorted(images, key=lambda image: (derive_seed("shard order", image.key), image.key))


@dataclass(frozen=True, kw_only=True)
class IngestedShard(ShardContent):
    """The records of one image shard.

    sources: images in the order of the shard, those in `stay_out` included.
    """

    split: str
    sources: tuple[SourceImage, ...]
    config: IngestConfig
    stay_out: StayOut

    @property
    def num_sources(self) -> int:
        return len(self.sources)

    @property
    def inputs(self) -> Any:
        # The allowed share of unusable images and the size of other shards change nothing in this shard.
        return self.split, self.sources, replace(self.config, max_rejected=0.0, records_per_shard=1), self.stay_out

    def records(self, rejected: list[Rejected]) -> Iterator[NewRecord]:
        sources = []
        for source in self.sources:
            if status := self.stay_out.status(source.key):
                rejected.append(Rejected(name=source.name, reason=status))
            else:
                sources.append(source)
        contents = read_many(source.locator for source in sources)
        for source, content in zip(sources, contents, strict=True):
            try:
                record = self._record(source, content)
            except (MemberError, RejectedImageError) as error:
                rejected.append(Rejected(name=source.name, reason=_reason(source.name, error)))
            else:
                yield record

    def _record(self, source: SourceImage, content: bytes | MemberError) -> NewRecord:
        """Make one record. Raises MemberError or RejectedImageError if the source is unusable or must stay out."""
        if isinstance(content, MemberError):
            raise content
        digest = hashlib.sha256(content).digest()
        if status := self.stay_out.status(source.key, digest):
            raise RejectedImageError(status)
        decoded = decode_with_note(content)
        image = fit(decoded.image, self.config.size, self.config.rule, crop=source.crop)
        about = {
            "source": source.name,
            "source_sha256": digest,
            "width": image.shape[1],
            "height": image.shape[0],
            "label": source.label,
            "group": source.group,
            "dhash": difference_hash(image),
        }
        members = self._encode(content, image)
        return NewRecord(key=source.key, members=members, about=about, is_metadata_dropped=decoded.is_metadata_dropped)

    def _encode(self, content: bytes, image: np.ndarray) -> dict[str, bytes]:
        """Return the stored member by its field name, which is the same for all records of a split.

        content: bytes of the source.
        image: the fitted picture, uint8 (H, W, 3).
        """
        lossless = self.config.format == "png" or self.split != "train"
        if self.config.keep_source and can_store_unchanged(content, image, "PNG" if lossless else "JPEG"):
            encoded = content
        else:
            encoded = encode_png(image) if lossless else encode_jpeg(image, self.config.jpeg_quality)
        return {"png" if lossless else "jpg": encoded}


def _reason(name: str, error: MemberError | RejectedImageError) -> str:
    """Return the reason of a rejection, with the format of the name if the content tells none."""
    format_name = format_by_name(name)
    is_told = error.reason != NO_IMAGE or format_name in ("", *FORMATS)
    return error.reason if is_told else f"{error.reason}, by its name {format_name}"
