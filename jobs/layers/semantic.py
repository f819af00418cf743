"""Encoder, heads and losses of papers that predict image and segmentation from coarse to fine.

Liao et al., "Guidance and Evaluation: Semantic-Aware Image Inpainting for Mixed Scenes", ECCV 2020, and "Image
Inpainting Guided by Coherence Priors of Semantics and Textures", CVPR 2021. The sides of a map at scale l are 1 / 2^l
of the image's. The two predictions of a scale are named "image<l>", (N, 3, h, w) in [-1, 1], and "logits<l>",
(N, K, h, w).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from files.errors import UserError
from files.pictures import IGNORE
from jobs.layers.convolution import ConvNormReLU, ResidualBlock
from jobs.recipe.losses import cross_entropy
from jobs.recipe.padding import check_sides
from jobs.recipe.precision import widen

NUM_SCALES = 5
SMALLEST_MULTIPLE = 2 ** (NUM_SCALES - 1)
"""Both sides of an image must be multiples of this."""


def scale_channels(width: int) -> tuple[int, ...]:
    """Return the channels of the features at scales 0, 1, ..., 4: 64, 128, 256, 512, 512 at width 64."""
    return width, 2 * width, 4 * width, 8 * width, 8 * width


class SemanticEncoder(nn.Module):
    """Encode image and mask by four halvings and four dilated residual blocks. The hole is filled with 0.

    The numbers of layers are inferred, since neither paper's tables could be read.

    width: channels of the first layer.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns the features of scale 4, (N, 8 * width, H / 16, W / 16), and the skips of scales 0, 1, 2, 3.
    Raises UserError if H or W is no multiple of 16, and for 16 x 16 pixels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = scale_channels(width)
        self.stages = nn.ModuleList([ConvNormReLU(4, width, 5)])
        for fine, coarse in pairwise(channels):
            self.stages.append(ConvNormReLU(fine, coarse, 4, stride=2))
        self.middle = nn.Sequential(*(ResidualBlock(channels[-1], dilation) for dilation in (1, 2, 4, 8)))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        check_sides(image, SMALLEST_MULTIPLE)
        if image.shape[-2:] == (SMALLEST_MULTIPLE, SMALLEST_MULTIPLE):  # one cell has no deviation to normalise with
            raise UserError(f"H and W must be multiples of {SMALLEST_MULTIPLE}, and one of them larger")
        features = [torch.cat((image * (1 - mask), mask), dim=1)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return self.middle(features[-1]), tuple(features[1:-1])


class SemanticHeads(nn.Module):
    """Predict segmentation and image of one scale from the same features.

    hidden: channels between the two convolutions of a head.

    forward(features):
        features: (N, channels, h, w), any range.
    Returns logits (N, num_classes, h, w) and an image (N, 3, h, w) in (-1, 1). Call `segmentation` or `image` for one
    of them.
    """

    def __init__(self, channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.segmentation = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, num_classes, 1)
        )
        self.image = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 3, 3, padding=1), nn.Tanh()
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.segmentation(features), self.image(features)


def heads_of_all_scales(width: int, num_classes: int) -> nn.ModuleList:
    """Return one `SemanticHeads` per scale, from 0 to 4. Hidden channels are half the features', at least `width`."""
    return nn.ModuleList(
        SemanticHeads(channels, num_classes, max(channels // 2, width)) for channels in scale_channels(width)
    )


def class_probabilities(logits: Tensor) -> Tensor:
    """Compute the softmax over the classes, in float32 at least: (N, K, h, w) -> the same shape, in [0, 1]."""
    return widen(logits).softmax(dim=1)


def hole_cells(mask: Tensor, scale: int) -> Tensor:
    """Reduce the mask to a scale; a cell with any hole pixel is hole.

    mask: (N, 1, H, W), 1 = hole.
    Returns (N, 1, H / 2^scale, W / 2^scale), 1 = hole.
    """
    return F.max_pool2d(mask, 2**scale) if scale else mask


def check_labels(labels: Tensor | None, num_classes: int) -> Tensor:
    """Check the labels of a batch and return them.

    labels: int64 (N, H, W) in [0, num_classes), or `IGNORE` where unknown.
    Raises UserError if there are no labels, or, on a CPU, if one is out of range.
    """
    if labels is None:
        raise UserError('training needs batch.semantics; read the column "semantics"')
    if labels.device.type != "cpu":  # the number of classes was compared before; a look would wait for the GPU
        return labels
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != IGNORE)]
    if wrong.numel():
        raise UserError(
            f"label {wrong[0].item()} is not below num_classes = {num_classes}; "
            f"set num_classes to the number of the data's classes, or give the label as {IGNORE} to leave it out"
        )
    return labels


def l1_of_all_scales(predictions: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Sum over scales the mean absolute error of the enlarged predictions. Hole and known pixels count alike.

    predictions: "image0" to "image4".
    image: (N, 3, H, W) in [-1, 1].
    """
    size = image.shape[-2:]
    return sum(F.l1_loss(_enlarge(predictions[f"image{scale}"], size), image) for scale in range(NUM_SCALES))


def cross_entropy_of_all_scales(predictions: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Sum over scales the mean cross-entropy of the enlarged predictions over labelled pixels.

    predictions: "logits0" to "logits4".
    labels: int64 (N, H, W), `IGNORE` where unknown.
    """
    size = labels.shape[-2:]
    return sum(cross_entropy(_enlarge(predictions[f"logits{scale}"], size), labels) for scale in range(NUM_SCALES))


def _enlarge(prediction: Tensor, size: torch.Size) -> Tensor:
    """Enlarge a prediction to a size, bilinearly, in float32 at least."""
    prediction = widen(prediction)
    return prediction if prediction.shape[-2:] == size else F.interpolate(prediction, size, mode="bilinear")
