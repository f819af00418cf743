"""Semantic label maps of images: the data set's, a segmenter's, or clusters by k-means in place of classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from files.colours import IMAGENET_DEVIATION, IMAGENET_MEAN
from files.durable import file_digest
from files.errors import UserError
from files.nearest import suggest
from files.pictures import IGNORE, FitRule

Segmenter = Literal[
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet101",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
]


@dataclass(frozen=True, kw_only=True)
class SemanticsConfig:
    """Source of the labels. Never compare results between sources.

    source: one of
        labels: the maps of the data set;
        segmenter: a network of torchvision;
        kmeans: clusters of colour and position, fitted on the training split. They are regions without a meaning, so
            that generators that need labels can run without any.
    num_clusters: classes of k-means, 2..255.
    position_weight: weight of a difference in position relative to one in colour, both scaled to unit variance.
    segmenter: name of a model in torchvision.models.segmentation.
    segmenter_weights: path of a file with its weights, or "default" for torchvision's download.
    """

    source: Literal["kmeans", "labels", "segmenter"] = "kmeans"
    num_clusters: int = 8
    position_weight: float = 0.5
    segmenter: Segmenter = "deeplabv3_resnet50"
    segmenter_weights: str = "default"

    def __post_init__(self) -> None:
        if not 2 <= self.num_clusters <= IGNORE:
            raise ValueError(f"num_clusters must be in 2..{IGNORE}, got {self.num_clusters}")
        if not self.position_weight >= 0:
            raise ValueError(f"position_weight must not be negative, got {self.position_weight}")

    def describe(self, seed: int) -> dict[str, Any]:
        """Return the settings that decide the labels of given images, as plain data.

        seed: of k-means.
        Weights of a segmenter are described by the digest of their file, and left out if there is no such file here.
        """
        described: dict[str, Any] = {"source": self.source}
        if self.source == "kmeans":
            described |= {"num_clusters": self.num_clusters, "position_weight": self.position_weight, "seed": seed}
        elif self.source == "segmenter":
            described["segmenter"] = self.segmenter
            weights = Path(self.segmenter_weights)
            if self.segmenter_weights == "default":
                described["weights"] = "default"
            elif weights.is_file():
                described["weights"] = file_digest(weights)
        return described


def fit_labels(
    labels: NDArray[np.uint8], picture: tuple[int, int], shape: tuple[int, int], rule: FitRule
) -> NDArray[np.uint8]:
    """Crop and resize a label map in the way that `files.pictures.fit` fitted its picture, by nearest neighbour.

    labels: uint8 (H, W). It may have another size than the picture, but must have the same aspect ratio.
    picture: height and width of the picture before it was fitted.
    shape: height and width of the fitted picture.
    rule: the rule that fitted it.
    Returns uint8 of `shape`.
    """
    height, width = labels.shape
    if rule in ("crop", "cut"):
        side = min(height, width)
        if rule == "cut":  # the square covers the same share of the map as of the picture
            side = round(side * shape[0] / min(picture))
        top, left = (height - side) // 2, (width - side) // 2
        labels = labels[top : top + side, left : left + side]
    return np.array(Image.fromarray(labels).resize(shape[::-1], Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Clusters:
    """Clusters of pixels by colour and position.

    mean, scale: of the features L, a, b, y, x; y and x are in [-1, 1].
    centres: one per cluster, in scaled features (feature - mean) * scale.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    centres: tuple[tuple[float, ...], ...]

    def label(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the nearest centre of every pixel: uint8 (H, W, 3) RGB -> uint8 (H, W) in [0, num_clusters)."""
        scaled = (pixel_features(image) - np.array(self.mean)) * np.array(self.scale)
        centres = np.array(self.centres)
        # |x - c|^2 without |x|^2, which is equal for all centres.
        distances = np.square(centres).sum(axis=1) - 2 * np.einsum("pf,kf->pk", scaled, centres)
        return distances.argmin(axis=1).astype(np.uint8).reshape(image.shape[:2])


def pixel_features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features L, a, b, y, x of every pixel: uint8 (H, W, 3) RGB -> (H * W, 5), row by row."""
    from skimage.color import rgb2lab  # slow to import, and most commands only read the config

    height, width = image.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.concatenate([rgb2lab(image), y[..., None], x[..., None]], axis=2).reshape(-1, 5)


def fit_clusters(
    images: Iterable[NDArray[np.uint8]], config: SemanticsConfig, seed: int, pixels_per_image: int = 256
) -> Clusters:
    """Fit k-means to random pixels of the images. A pure function of its arguments.

    images: uint8 (H, W, 3) RGB each.
    pixels_per_image: number of pixels drawn from each image.
    Returns the clusters, numbered by their number of pixels, largest first. Raises ValueError without images.
    """
    from sklearn.cluster import KMeans  # slow to import, and most commands only read the config
    from threadpoolctl import threadpool_limits

    random = np.random.default_rng(seed)
    samples = []
    for image in images:
        features = pixel_features(image)
        samples.append(features[random.choice(len(features), min(pixels_per_image, len(features)), replace=False)])
    if not samples:
        raise ValueError("k-means needs at least one image")
    features = np.concatenate(samples)
    mean, scale = features.mean(axis=0), 1 / np.maximum(features.std(axis=0), 1e-6)
    scale[3:] *= config.position_weight
    with threadpool_limits(1):  # several threads would add in varying order
        fitted = KMeans(config.num_clusters, n_init=1, random_state=seed % 2**32).fit((features - mean) * scale)
    order = np.argsort(-np.bincount(fitted.labels_, minlength=config.num_clusters), kind="stable")
    # Rounded, because the last bits may differ between processors and no label should depend on them.
    return Clusters(
        tuple(mean.round(6).tolist()),
        tuple(scale.round(6).tolist()),
        tuple(tuple(centre) for centre in fitted.cluster_centers_[order].round(6).tolist()),
    )


def segment(image: NDArray[np.uint8], config: SemanticsConfig) -> NDArray[np.uint8]:
    """Return the most likely class of every pixel by a segmenter of torchvision: uint8 (H, W, 3) RGB -> uint8 (H, W).

    Raises UserError for an unknown model, and for weights that cannot be read, fetched or loaded.
    """
    import torch

    model, mean, deviation = _segmenter(config.segmenter, config.segmenter_weights)
    scaled = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)
    with torch.no_grad():
        scores = model(((scaled - mean) / deviation)[None])["out"][0]
    return scores.argmax(dim=0).numpy().astype(np.uint8)


def segmenter_classes(config: SemanticsConfig) -> list[str]:
    """Return the names of a segmenter's classes, label 0 first. Raises UserError for an unknown model."""
    return list(_published_weights(config.segmenter).meta["categories"])


def _published_weights(name: str):
    from torchvision.models import get_model_weights, list_models, segmentation

    if name not in list_models(module=segmentation):
        raise UserError(f"torchvision has no segmenter {name!r}; {suggest(name, list_models(module=segmentation))}")
    return get_model_weights(name).DEFAULT


@cache
def _segmenter(name: str, weights: str):
    import torch
    from torchvision.models import get_model

    entry = _published_weights(name)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=len(entry.meta["categories"]))
    try:
        if weights == "default":
            state = entry.get_state_dict(progress=False, check_hash=True)
        else:
            state = torch.load(Path(weights), map_location="cpu", weights_only=True)
        # The published weights include an auxiliary head, which only training needs.
        model.load_state_dict({key: value for key, value in state.items() if not key.startswith("aux_classifier.")})
    except OSError as error:
        raise UserError(
            f"the weights of {name} could not be read from {entry.url if weights == 'default' else weights} ({error}); "
            "put the file on disk and name it as semantics.segmenter_weights"
        ) from error
    except RuntimeError as error:
        raise UserError(f"{weights}: not the weights of {name} ({error})") from error
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    deviation = torch.tensor(IMAGENET_DEVIATION).view(3, 1, 1)
    return model.eval(), mean, deviation
