"""Image shards -> semantic label shards, with the same keys in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.inflated import inflate_sources
from datasets.maps.semantics import Clusters, SemanticsConfig, fit_clusters, fit_labels, segment
from datasets.shards.column import Column
from datasets.sources import Source, SourceImage, open_source
from datasets.writing.derived import ColumnContent, derive_column
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
from pipeline.layout import column_folder, inflated_folder, made_note
from pipeline.params import Params, ParamsError
from pipeline.writing import column_target, image_folders, task_runner

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
    """The data set's own labels, fitted to size by the image's rule; `IGNORE` everywhere for a picture without labels.

    source: the data set, which turns label files into a label map.
    pictures: key -> picture and its label files.
    rule: how the images were fitted.
    """

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

    def select(self, keys: Sequence[str]) -> LabelContent:
        return replace(self, pictures={key: self.pictures[key] for key in keys})


def _read_labels(locator: Locator) -> np.ndarray:
    try:
        return decode_grey(read(locator))
    except RejectedImageError as error:
        raise UserError(f"{locator.container}: label file {locator.member}: {error}; repair or remove it") from error


def _check_ratio(picture: SourceImage, size: tuple[int, int], labels: np.ndarray) -> None:
    """Raise UserError unless a label map has its picture's aspect ratio, up to rounding to whole pixels.

    size: (width, height) of the picture.
    labels: uint8 (H, W).
    """
    width, height = size
    scale = labels.shape[0] / height
    if abs(labels.shape[1] - scale * width) > max(1, scale):
        raise UserError(
            f"{picture.locator.container}: {picture.name} is {width} x {height}, but its labels "
            f"({picture.labels[0].member}) are {labels.shape[1]} x {labels.shape[0]}: not the labels of this picture"
        )


def run(params: Params) -> None:
    """Write shards/semantics/<split> for every split of shards/image. A column that would get the same bytes is kept.

    Raises ParamsError if `semantics.source` is labels and the data set has none.
    """
    if params.semantics.source == "kmeans":
        _write_clusters(params)
    elif params.semantics.source == "segmenter":
        _write_segments(params)
    else:
        _write_labels(params)


def _write_clusters(params: Params) -> None:
    config = params.semantics
    train = Column(column_folder("image", "train"), store=params.store, remedy="dvc repro ingest")
    shuffled = sorted(range(len(train.keys)), key=lambda record: derive_seed("k-means", train.keys[record].as_py()))
    images = (decode_image(train.read(record)) for record in shuffled[:_KMEANS_IMAGES])
    clusters = fit_clusters(images, config, params.seed)
    classes = [f"cluster {number}" for number in range(config.num_clusters)]
    _derive(params, ClusterContent(clusters), {"classes": classes, **asdict(clusters)})


def _write_segments(params: Params) -> None:
    config = params.semantics
    weights = Path(config.segmenter_weights)
    content = SegmenterContent(config, file_digest(weights) if weights.is_file() else "")
    _derive(params, content, {"segmenter": config.segmenter, "weights": config.segmenter_weights})


def _write_labels(params: Params) -> None:
    source = open_source(params.dataset)
    if not source.classes:
        raise ParamsError(
            f"params.yaml: semantics.source is labels, but {source.card.name} has no label maps; "
            "use kmeans or segmenter"
        )
    folder, open_bar = inflated_folder("semantics").resolve(), task_runner(params).open_bar
    with inflate_sources(folder, source.images(), open_bar) as images:
        content = LabelContent(type(source), {image.key: image for image in images}, params.ingest.rule)
        _derive(params, content, {"classes": source.classes, "mirrored": source.mirrored})


def _derive(params: Params, content: ColumnContent, parameters: Mapping[str, Any]) -> None:
    """Write the column.

    parameters: entries of its manifests beside the source; `mirrored` has none unless it is given.
    """
    described = {"source": params.semantics.source, "ignore": IGNORE, "mirrored": (), **parameters}
    target, note = column_target(params, "semantics"), made_note("semantics")
    derive_column(target, image_folders(), content, described, task_runner(params), note=note)
