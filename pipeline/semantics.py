"""Image shards -> semantic label shards, with the same keys in the same order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datasets.archives import Locator, read
from datasets.decode import IGNORE, decode_grey, decode_image, encode_grey_png
from datasets.ingest import IngestConfig
from datasets.plan import derive_seed
from datasets.semantics import Clusters, SemanticsConfig, fit_clusters, fit_labels, segment
from datasets.shards import Column
from datasets.sources import Source, open_source
from pipeline.columns import image_splits, write_column
from pipeline.layout import column_folder
from pipeline.params import Params, ParamsError

_KMEANS_IMAGES = 2000


@dataclass(frozen=True)
class ClusterMembers:
    """Labels by k-means."""

    clusters: Clusters

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(self.clusters.label(image))}


@dataclass(frozen=True)
class SegmenterMembers:
    """Labels by a network of torchvision."""

    config: SemanticsConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        return {"png": encode_grey_png(segment(image, self.config))}


@dataclass(frozen=True)
class LabelMembers:
    """The data set's own labels, fitted as the image was; `IGNORE` everywhere where a picture has none."""

    source: type[Source]
    files: Mapping[str, tuple[Locator, ...]]
    ingest: IngestConfig

    def __call__(self, key: str, image: np.ndarray) -> dict[str, bytes]:
        if not self.files[key]:
            return {"png": encode_grey_png(np.full(image.shape[:2], IGNORE, np.uint8))}
        files = {locator.member: decode_grey(read(locator)) for locator in self.files[key]}
        labels = fit_labels(self.source.label_map(files), self.ingest.size, self.ingest.rule)
        return {"png": encode_grey_png(labels)}


def run(params: Params) -> None:
    """Write shards/semantics/<split> for every split of shards/image.

    Raises ParamsError when the labels of a data set are asked for that has none.
    """
    config = params.semantics
    splits = image_splits()
    parameters: dict[str, Any] = {"source": config.source, "ignore": IGNORE, "mirrored": ()}
    if config.source == "kmeans":
        train = Column(column_folder("image", "train"), remedy="dvc repro ingest")
        chosen = sorted(range(len(train.keys)), key=lambda r: derive_seed("k-means", train.keys[r].as_py()))
        images = (decode_image(train.read(record)) for record in chosen[:_KMEANS_IMAGES])
        clusters = fit_clusters(images, config, params.seed)
        parameters |= {"classes": [f"cluster {n}" for n in range(config.num_clusters)], **asdict(clusters)}
        members: Callable = ClusterMembers(clusters)
    elif config.source == "segmenter":
        parameters |= {"segmenter": config.segmenter, "weights": config.segmenter_weights}
        members = SegmenterMembers(config)
    else:
        source = open_source(params.dataset)
        if not source.classes:
            raise ParamsError(
                f"params.yaml: semantics.source is labels, but {source.card.name} has no label maps; "
                "use kmeans or segmenter"
            )
        parameters |= {"classes": source.classes, "mirrored": source.mirrored}
        files = {image.key: image.labels for image in source.images()}
        members = LabelMembers(type(source), files, params.ingest)
    write_column(params, splits, "semantics", members, parameters)
