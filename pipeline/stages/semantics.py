"""Image shards -> semantic label shards, with the same keys in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from datasets.inflated import inflate_sources
from datasets.maps.semantics import Clusters, SemanticsConfig, fit_clusters, fit_labels, segment, segmenter_classes
from datasets.sources import Source, SourceImage, open_source
from datasets.writing.derived import ColumnContent, derive_column
from datasets.writing.staging import ColumnTarget
from files.archives import Locator, read
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
from pipeline.columns import open_column
from pipeline.inputs import StageInputs
from pipeline.layout import inflated_folder, made_note
from pipeline.params import Params, ParamsError
from pipeline.writing import column_target, hold_columns, image_folders, task_runner

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


@hold_columns("semantics", read=["image"])
def run(params: Params) -> None:
    """Write shards/semantics/<split> for every split of shards/image. A column that would get the same bytes is kept.

    Raises ParamsError if `semantics.source` is labels and the data set has none.
    """
    target = column_target(params, "semantics", StageInputs.read("semantics"))
    if params.semantics.source == "kmeans":
        _write_clusters(params, target)
    elif params.semantics.source == "segmenter":
        _write_segments(params, target)
    else:
        _write_labels(params, target)


def _write_clusters(params: Params, target: ColumnTarget) -> None:
    config = params.semantics
    train = open_column(params, "image", "train")
    shuffled = sorted(range(len(train.keys)), key=lambda record: derive_seed("k-means", train.keys[record].as_py()))
    images = (decode_image(train.read(record)) for record in shuffled[:_KMEANS_IMAGES])
    clusters = fit_clusters(images, config, params.seed)
    classes = [f"cluster {number}" for number in range(config.num_clusters)]
    _derive(params, target, ClusterContent(clusters), {"classes": classes, **asdict(clusters)})


def _write_segments(params: Params, target: ColumnTarget) -> None:
    content = SegmenterContent(params.semantics, params.semantics.describe(params.seed).get("weights", ""))
    _derive(params, target, content, {"classes": segmenter_classes(params.semantics)})


def _write_labels(params: Params, target: ColumnTarget) -> None:
    source = open_source(params.dataset)
    if not source.classes:
        raise ParamsError(
            f"params.yaml: semantics.source is labels, but {source.card.name} has no label maps; "
            "use kmeans or segmenter"
        )
    folder, open_bar = inflated_folder("semantics").resolve(), task_runner(params).open_bar
    with inflate_sources(folder, source.images(), open_bar) as images:
        content = LabelContent(type(source), {image.key: image for image in images}, params.ingest.rule)
        _derive(params, target, content, {"classes": source.classes, "mirrored": source.mirrored})


def _derive(params: Params, target: ColumnTarget, content: ColumnContent, parameters: Mapping[str, Any]) -> None:
    """Write the column.

    parameters: entries of its manifests beside the settings; `mirrored` has none unless it is given.
    """
    described = {**params.semantics.describe(params.seed), "ignore": IGNORE, "mirrored": (), **parameters}
    note = made_note("semantics")
    derive_column(target, image_folders(params), content, described, task_runner(params), note=note)
