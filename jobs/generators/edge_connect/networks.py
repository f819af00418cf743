"""EdgeConnect's generators and discriminators (Nazeri et al. 2019, Sec. 3).

Images, grey values and edges are in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from jobs.layers.composite import composite
from jobs.layers.convolution import NarrowConv2d
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.normalization import InstanceNorm2d
from jobs.recipe.padding import check_sides


class ResidualBlock(nn.Module):
    """x + (conv with dilation 2, norm, ReLU, conv, norm)(x), without a ReLU after the sum.

    channels: C.
    spectral: whether the convolutions have spectral norm.
    forward(features):
        features: (N, C, H, W), any range; H and W are at least 3.
    Returns the same shape.
    """

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        bias = not spectral  # as in the code; the norm removes a bias again in any case
        self.block = nn.Sequential(
            nn.ReflectionPad2d(2),
            _normed(nn.Conv2d(channels, channels, 3, dilation=2, bias=bias), spectral),
            InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            _normed(nn.Conv2d(channels, channels, 3, bias=bias), spectral),
            InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.block(features)


class Generator(nn.Module):
    """The body of both generators: down by 4, residual blocks, up by 4. No activation at the end.

    width: channels of the first layer.
    residual_blocks: their number.
    spectral: whether all convolutions but the last have spectral norm.
    forward(features):
        features: (N, in_channels, H, W); H and W are multiples of 4 and at least 12.
    Returns (N, out_channels, H, W), unbounded.
    Raises UserError for another H or W.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, residual_blocks: int, spectral: bool) -> None:
        super().__init__()
        narrow, middle, wide = width, 2 * width, 4 * width
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_layer(nn.Conv2d(in_channels, narrow, 7), spectral),
            *_layer(nn.Conv2d(narrow, middle, 4, stride=2, padding=1), spectral),
            *_layer(nn.Conv2d(middle, wide, 4, stride=2, padding=1), spectral),
            *(ResidualBlock(wide, spectral) for _ in range(residual_blocks)),
            *_layer(nn.ConvTranspose2d(wide, middle, 4, stride=2, padding=1), spectral),
            *_layer(nn.ConvTranspose2d(middle, narrow, 4, stride=2, padding=1), spectral),
            nn.ReflectionPad2d(3),
            _normed(NarrowConv2d(narrow, out_channels, 7), spectral=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        check_sides(features, 4, smallest=12)
        return self.layers(features)


class EdgeGenerator(Generator):
    """G1: predict edges everywhere from the visible pixels. Spectral norm in all layers but the last.

    forward(grey, edge, mask):
        grey: (N, 1, H, W) in [0, 1]; pixels under the hole are not read.
        edge: (N, 1, H, W), 0 or 1; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns the probability of an edge, (N, 1, H, W).
    Raises UserError for H or W that is no multiple of 4 or below 12.
    """

    def __init__(self, width: int, residual_blocks: int) -> None:
        super().__init__(3, 1, width, residual_blocks, spectral=True)

    def forward(self, grey: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        seen = torch.cat([_white_hole(grey, mask), edge * (1 - mask), mask], dim=1)  # (N, 3, H, W)
        return torch.sigmoid(super().forward(seen))


class ImageGenerator(Generator):
    """G2: paint the image from its visible pixels and edges everywhere. No spectral norm.

    forward(image, edge, mask):
        image: (N, 3, H, W) in [0, 1]; pixels under the hole are not read.
        edge: (N, 1, H, W) in [0, 1], also in the hole.
        mask: (N, 1, H, W), 1 = hole; it says where the image is painted white, and no layer sees it.
    Returns the image, (N, 3, H, W) in [0, 1].
    Raises UserError for H or W that is no multiple of 4 or below 12.
    """

    def __init__(self, width: int, residual_blocks: int) -> None:
        super().__init__(4, 3, width, residual_blocks, spectral=False)

    def forward(self, image: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        seen = torch.cat([_white_hole(image, mask), edge], dim=1)  # (N, 4, H, W)
        return (torch.tanh(super().forward(seen)) + 1) / 2


class Discriminator(PatchDiscriminator):
    """D1 and D2: score patches, and return the features that the feature-matching loss compares.

    All layers have spectral norm and no bias.
    forward(image):
        image: (N, in_channels, H, W); H and W are at least 24.
    Returns five maps: the features of four layers after their LeakyReLU, then the scores as logits,
    (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__(in_channels, width, bias=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.features(image)


def complete_edges(predicted: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
    """Return C_comp: the predicted edges, not rounded, in the hole and the given ones outside. All are (N, 1, H, W)."""
    return composite(predicted, edge, mask)


def _white_hole(image: Tensor, mask: Tensor) -> Tensor:
    return image * (1 - mask) + mask


def _layer(convolution: nn.Module, spectral: bool) -> tuple[nn.Module, ...]:
    return _normed(convolution, spectral), InstanceNorm2d(convolution.out_channels), nn.ReLU()


def _normed(convolution: nn.Module, spectral: bool) -> nn.Module:
    # Draw the weights before adding the norm, which starts from the largest singular value of these weights.
    nn.init.normal_(convolution.weight, std=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return spectral_norm(convolution) if spectral else convolution
