"""Image shards -> semantic label shards, with the same keys in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.maps.semantics import Clusters, SemanticsConfig, fit_clusters, fit_labels, segment
from datasets.shards.column import Column
from datasets.sources import Source, SourceImage, open_source
from files.archives import Locator, read
from files.durable import file_digest
from files.errors import UserError
from files.pictures import (
    IGNORE,
    FitRule,
    RejectedImageError,
    declared_size,
    decode_grey,
    decode_image,
    encode_grey_png,
)
from files.seeds import derive_seed
from pipeline.columns import ColumnContent, derive_column, image_splits
from pipeline.inflated import inflated
from pipeline.layout import column_folder
from pipeline.params import Params, ParamsError

_KMEANS_IMAGES = 2000


@dataclass(frozen=True)
class ClusterContent(ColumnContent):
    """Labels by k-means."""

    clusters: Clusters

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(self.clusters.label(image))}


@dataclass(frozen=True)
class SegmenterContent(ColumnContent):
    """Labels by a network of torchvision."""

    config: SemanticsConfig
    weights_sha256: str

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(segment(image, self.config))}


@dataclass(frozen=True)
class LabelContent(ColumnContent):
    """The data set's own labels, fitted as the image was; `IGNORE` everywhere where a picture has none."""

    source: type[Source]
    pictures: Mapping[str, SourceImage]
    rule: FitRule

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        picture = self.pictures[key]
        if not picture.labels:
            return {"png": encode_grey_png(np.full(image.shape[:2], IGNORE, np.uint8))}
        labels = self.source.label_map({locator.member: _read_labels(locator) for locator in picture.labels})
        width, height = declared_size(read(picture.locator))
        _check_ratio(picture, (width, height), labels)
        return {"png": encode_grey_png(fit_labels(labels, (height, width), image.shape[:2], self.rule))}

    def of(self, keys: Sequence[str]) -> LabelContent:
        return replace(self, pictures={key: self.pictures[key] for key in keys})


def _read_labels(locator: Locator) -> np.ndarray:
    try:
        return decode_grey(read(locator))
    except RejectedImageError as error:
        raise UserError(f"{locator.container}: label file {locator.member}: {error}; repair or remove it") from error


def _check_ratio(picture: SourceImage, size: tuple[int, int], labels: np.ndarray) -> None:
    """Raise ValueError unless a label map covers what its picture shows, up to rounding to whole pixels."""
    width, height = size
    scale = labels.shape[0] / height
    if abs(labels.shape[1] - scale * width) > max(1, scale):
        raise UserError(
            f"{picture.locator.container}: {picture.name} is {width} x {height}, but its labels "
            f"({picture.labels[0].member}) are {labels.shape[1]} x {labels.shape[0]}: not the labels of this picture"
        )


def run(params: Params) -> None:
    """Write shards/semantics/<split> for every split of shards/image.

    Raises ParamsError when the labels of a data set are asked for that has none.
    """
    config = params.semantics
    splits = image_splits()
    parameters: dict[str, Any] = {"source": config.source, "ignore": IGNORE, "mirrored": ()}
    if config.source == "kmeans":
        train = Column(column_folder("image", "train"), store=params.store, remedy="dvc repro ingest")
        chosen = sorted(range(len(train.keys)), key=lambda r: derive_seed("k-means", train.keys[r].as_py()))
        images = (decode_image(train.read(record)) for record in chosen[:_KMEANS_IMAGES])
        clusters = fit_clusters(images, config, params.seed)
        parameters |= {"classes": [f"cluster {n}" for n in range(config.num_clusters)], **asdict(clusters)}
        members: ColumnContent = ClusterContent(clusters)
    elif config.source == "segmenter":
        parameters |= {"segmenter": config.segmenter, "weights": config.segmenter_weights}
        weights = Path(config.segmenter_weights)
        members = SegmenterContent(config, file_digest(weights) if weights.is_file() else "")
    else:
        source = open_source(params.dataset)
        if not source.classes:
            raise ParamsError(
                f"params.yaml: semantics.source is labels, but {source.card.name} has no label maps; "
                "use kmeans or segmenter"
            )
        parameters |= {"classes": source.classes, "mirrored": source.mirrored}
        with inflated("semantics", source.images()) as images:
            members = LabelContent(type(source), {image.key: image for image in images}, params.ingest.rule)
            derive_column(params, "semantics", splits, "semantics", members, parameters)
        return
    derive_column(params, "semantics", splits, "semantics", members, parameters)
