"""Semantic label maps as a column: a data set's own, a segmenter's, or an unsupervised stand-in by k-means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from files.colours import IMAGENET_DEVIATION, IMAGENET_MEAN
from files.errors import UserError
from files.pictures import IGNORE, FitRule


@dataclass(frozen=True, kw_only=True)
class SemanticsConfig:
    """Where labels come from.

    source: "labels", the maps that come with the data set; "segmenter", a network of torchvision; "kmeans", clusters of
        colour and position, fitted on the training split: no semantics, but regions, so that generators that need
        labels can run without any. Never compare numbers across sources.
    num_clusters: classes of the k-means. position_weight: how much a difference in position counts, 1 being as much
        as in colour; both are scaled to unit variance first.
    segmenter, segmenter_weights: a model of torchvision.models.segmentation, and "default", torchvision's download, or
        a file of its weights.
    """

    source: Literal["kmeans", "labels", "segmenter"] = "kmeans"
    num_clusters: int = 8
    position_weight: float = 0.5
    segmenter: str = "deeplabv3_resnet50"
    segmenter_weights: str = "default"

    def __post_init__(self) -> None:
        if not 2 <= self.num_clusters <= IGNORE:
            raise ValueError(f"num_clusters must lie in 2..{IGNORE}, got {self.num_clusters}")
        if not self.position_weight >= 0:
            raise ValueError(f"position_weight must not be negative, got {self.position_weight}")


def fit_labels(
    labels: NDArray[np.uint8], picture: tuple[int, int], shape: tuple[int, int], rule: FitRule
) -> NDArray[np.uint8]:
    """Bring a label map (H, W) to `shape`, height and width, as `files.pictures.fit` brought its picture there.

    picture: height and width of the picture before that. The map may have another size than the picture, but must have
    its aspect ratio. By nearest neighbour.
    """
    height, width = labels.shape
    if rule in ("crop", "cut"):
        side = min(height, width)
        if rule == "cut":  # the square's share of the picture is its share of the map
            side = round(side * shape[0] / min(picture))
        top, left = (height - side) // 2, (width - side) // 2
        labels = labels[top : top + side, left : left + side]
    return np.array(Image.fromarray(labels).resize(shape[::-1], Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Clusters:
    """k-means of pixels: labels by the nearest of some centres in scaled Lab colour and position.

    mean, scale, centres: of the features L, a, b, y, x (the latter in [-1, 1]); centres are in scaled features.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    centres: tuple[tuple[float, ...], ...]

    def label(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The cluster of every pixel: uint8 (H, W, 3) RGB -> uint8 (H, W) in [0, num_clusters)."""
        scaled = (pixel_features(image) - np.array(self.mean)) * np.array(self.scale)
        centres = np.array(self.centres)
        # |x - c|^2 without |x|^2, which is the same for every centre.
        distances = np.square(centres).sum(axis=1) - 2 * np.einsum("pf,kf->pk", scaled, centres)
        return distances.argmin(axis=1).astype(np.uint8).reshape(image.shape[:2])


def pixel_features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """L, a, b, y, x of every pixel: uint8 (H, W, 3) RGB -> (H * W, 5), row by row."""
    height, width = image.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.concatenate([rgb2lab(image), y[..., None], x[..., None]], axis=2).reshape(-1, 5)


def fit_clusters(
    images: Iterable[NDArray[np.uint8]], config: SemanticsConfig, seed: int, pixels_per_image: int = 256
) -> Clusters:
    """k-means over random pixels of the images; the same for equal images, config and seed.

    Clusters are numbered by the size of the set of pixels they hold, largest first. Raises ValueError without images.
    """
    from sklearn.cluster import KMeans  # takes a second, and most verbs only read the config
    from threadpoolctl import threadpool_limits

    random = np.random.default_rng(seed)
    drawn = []
    for image in images:
        features = pixel_features(image)
        drawn.append(features[random.choice(len(features), min(pixels_per_image, len(features)), replace=False)])
    if not drawn:
        raise ValueError("k-means needs at least one image")
    features = np.concatenate(drawn)
    mean, scale = features.mean(axis=0), 1 / np.maximum(features.std(axis=0), 1e-6)
    scale[3:] *= config.position_weight
    with threadpool_limits(1):  # several threads add in varying order
        found = KMeans(config.num_clusters, n_init=1, random_state=seed % 2**32).fit((features - mean) * scale)
    order = np.argsort(-np.bincount(found.labels_, minlength=config.num_clusters), kind="stable")
    # Rounded: the last bits may differ between processors, and no label should depend on them.
    return Clusters(
        tuple(mean.round(6).tolist()),
        tuple(scale.round(6).tolist()),
        tuple(tuple(centre) for centre in found.cluster_centers_[order].round(6).tolist()),
    )


def segment(image: NDArray[np.uint8], config: SemanticsConfig) -> NDArray[np.uint8]:
    """The most likely class of every pixel by torchvision's segmenter: uint8 (H, W, 3) RGB -> uint8 (H, W).

    Raises ValueError for a model that is not there or weights that do not fit, and RuntimeError if the download fails.
    """
    import torch

    model, mean, deviation = _segmenter(config.segmenter, config.segmenter_weights)
    scaled = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)
    with torch.no_grad():
        scores = model(((scaled - mean) / deviation)[None])["out"][0]
    return scores.argmax(dim=0).numpy().astype(np.uint8)


@cache
def _segmenter(name: str, weights: str):
    import torch
    from torchvision.models import get_model, get_model_weights, list_models, segmentation

    if name not in list_models(module=segmentation):
        there = ", ".join(list_models(module=segmentation))
        raise UserError(f"torchvision has no segmenter {name!r}; it has {there}")
    entry = get_model_weights(name).DEFAULT
    model = get_model(name, weights=None, weights_backbone=None, num_classes=len(entry.meta["categories"]))
    try:
        if weights == "default":
            state = entry.get_state_dict(progress=False, check_hash=True)
        else:
            state = torch.load(Path(weights), map_location="cpu", weights_only=True)
        # Training needs an auxiliary head, of which the published weights have one; labelling does not.
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
