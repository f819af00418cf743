"""EdgeConnect's generators and discriminators. Nazeri et al. 2019, Sec. 3; images, grey values and edges in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from jobs.layers.composite import composite
from jobs.layers.discriminators import PatchDiscriminator
from jobs.recipe.padding import check_sides


class ResidualBlock(nn.Module):
    """x + (conv with dilation 2, norm, ReLU, conv, norm)(x), and no ReLU after the sum.

    forward(features): (N, C, H, W), H and W at least 3, any range. Returns the same shape.
    """

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        bias = not spectral  # as in the code; the norm takes a bias out again either way
        self.block = nn.Sequential(
            nn.ReflectionPad2d(2),
            _normed(nn.Conv2d(channels, channels, 3, dilation=2, bias=bias), spectral),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            _normed(nn.Conv2d(channels, channels, 3, bias=bias), spectral),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.block(features)


class Generator(nn.Module):
    """The body of both generators: down by 4, residual blocks, up by 4. No activation at the end.

    forward(features): (N, in_channels, H, W), H and W multiples of 4, at least 12. Returns (N, out_channels, H, W).
    Raises ValueError for another H or W.
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
            _normed(nn.Conv2d(narrow, out_channels, 7), spectral=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        check_sides(features, 4, smallest=12)
        return self.layers(features)


class EdgeGenerator(Generator):
    """G1: predict edges everywhere from the visible pixels. Spectral norm in all layers but the last.

    forward(grey, edge, mask): (N, 1, H, W) each, edge 0 or 1, mask 1 = hole. Returns the probability of an edge,
    (N, 1, H, W). Pixels under the hole are not read.
    """

    def __init__(self, width: int, residual_blocks: int) -> None:
        super().__init__(3, 1, width, residual_blocks, spectral=True)

    def forward(self, grey: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        seen = torch.cat([_white_hole(grey, mask), edge * (1 - mask), mask], dim=1)  # (N, 3, H, W)
        return torch.sigmoid(super().forward(seen))


class ImageGenerator(Generator):
    """G2: the image, from its visible part and edges everywhere. No spectral norm, and the mask is no input.

    forward(image, edge, mask): (N, 3, H, W), (N, 1, H, W) twice; edge in [0, 1], also in the hole; mask 1 = hole.
    Returns (N, 3, H, W). Colours under the hole are not read.
    """

    def __init__(self, width: int, residual_blocks: int) -> None:
        super().__init__(4, 3, width, residual_blocks, spectral=False)

    def forward(self, image: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
        seen = torch.cat([_white_hole(image, mask), edge], dim=1)  # (N, 4, H, W)
        return (torch.tanh(super().forward(seen)) + 1) / 2


class Discriminator(PatchDiscriminator):
    """D1 and D2: patch scores beside the features that the feature-matching loss compares. Spectral norm, no bias.

    forward(image): (N, in_channels, H, W), H and W at least 24. Returns five features, the last of them the scores as
    logits, (N, 1, H/8 - 2, W/8 - 2); those before it after their LeakyReLU.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__(in_channels, width, bias=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.features(image)


def complete_edges(predicted: Tensor, edge: Tensor, mask: Tensor) -> Tensor:
    """C_comp: predicted edges, soft, in the hole and the given ones outside. (N, 1, H, W) each."""
    return composite(predicted, edge, mask)


def _white_hole(image: Tensor, mask: Tensor) -> Tensor:
    return image * (1 - mask) + mask


def _layer(convolution: nn.Module, spectral: bool) -> tuple[nn.Module, ...]:
    return _normed(convolution, spectral), nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()


def _normed(convolution: nn.Module, spectral: bool) -> nn.Module:
    # Weights first, norm second: the norm must start from the largest singular value of these weights.
    nn.init.normal_(convolution.weight, std=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return spectral_norm(convolution) if spectral else convolution
