"""PGGAN's networks: the generator of residual blocks and the discriminator with a global and a patch branch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from files.errors import UserError
from jobs.layers.convolution import NarrowConv2d
from jobs.layers.initialisation import draw_normal
from jobs.layers.normalization import BatchNorm2d
from jobs.recipe.padding import check_sides


class Generator(nn.Module):
    """Halve the image, apply residual blocks, and double it by resizing and convolution.

    Demir and Unal, 2018, PGGAN-DRes and PGGAN-Res. Batch norm and ReLU follow every convolution outside the blocks, but
    the last. Padding is by reflection, "same".

    width: channels of the first layer; each halving doubles them.
    halvings: number of halvings: 2 (DRes) or 3 (Res).
    dilations: of each residual block: (first, second) convolution.
    resize: mode of `torch.nn.functional.interpolate`.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1].
    Raises UserError if H or W is no multiple of 2^halvings, or too short to be padded by the largest dilation.
    """

    def __init__(self, *, width: int, halvings: int, dilations: tuple[tuple[int, int], ...], resize: str) -> None:
        super().__init__()
        self.multiple = 2**halvings
        self.smallest = self.multiple * (max(max(pair) for pair in dilations) + 1)
        widths = [width * 2**n for n in range(halvings + 1)]
        encoder = [_layer(4, width, 7)]
        encoder += [_layer(inner, outer, 3, stride=2) for inner, outer in pairwise(widths)]
        blocks = [ResidualBlock(widths[-1], *pair) for pair in dilations]
        decoder = [
            nn.Sequential(Resize(resize), _layer(outer, inner, 3)) for inner, outer in reversed(list(pairwise(widths)))
        ]
        self.layers = nn.Sequential(*encoder, *blocks, *decoder, NarrowConv2d(width, 3, 7, reflect=3), nn.Tanh())
        self.apply(_draw)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        check_sides(image, self.multiple, self.smallest)
        return self.layers(torch.cat((image * (1 - mask), mask), dim=1))


class ResidualBlock(nn.Module):
    """Compute x + conv(ReLU(norm(conv(x)))). Nothing follows the sum.

    Demir and Unal, 2018, residual blocks. The kernels are 3x3. The first convolution has no bias, since a norm follows.

    first, second: dilation of the two convolutions.

    forward(features):
        features: (N, channels, H, W), any range, H and W larger than both dilations.
    Returns the same shape.
    """

    def __init__(self, channels: int, first: int, second: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            _conv(channels, channels, 3, dilation=first),
            BatchNorm2d(channels),
            nn.ReLU(),
            _conv(channels, channels, 3, dilation=second, bias=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.block(features)


class Resize(nn.Module):
    """Double height and width: (N, C, H, W) -> (N, C, 2H, 2W).

    mode: "bilinear", "bicubic" or "nearest", of `torch.nn.functional.interpolate`, without aligned corners.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=2, mode=self.mode)


class Discriminator(nn.Module):
    """Judge an image by one logit and by one logit per patch. It does not see the mask.

    Demir and Unal, 2018, the discriminator that joins a global GAN and a patch GAN. Three layers are shared. Each
    branch continues with 4x4 convolutions of stride 2: the patch branch to 1/16 of the size, the global branch to 4x4.

    image_size: side of the images in pixels, a power of two of at least 64.
    width: channels of the first layer.
    patch_fc: whether a linear layer joins all patch scores.

    forward(image):
        image: (N, 3, image_size, image_size) in [-1, 1].
    Returns the global logit (N, 1) and the patch logits (N, (image_size / 16)^2), row by row.
    Raises UserError for images of another size.
    """

    def __init__(self, *, image_size: int, width: int = 64, patch_fc: bool = True) -> None:
        super().__init__()
        self.image_size = image_size
        num_patches = (image_size // 16) ** 2
        self.shared = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _halving(width, 2 * width),
            _halving(2 * width, 4 * width),
        )
        self.patches = nn.Sequential(
            _halving(4 * width, 8 * width),
            nn.Conv2d(8 * width, 1, 3, padding=1),
            nn.Flatten(),
            nn.Linear(num_patches, num_patches) if patch_fc else nn.Identity(),
        )
        num_halvings = (image_size // 16).bit_length() - 3  # from image_size / 16 to 4
        self.whole = nn.Sequential(
            _halving(4 * width, 8 * width),
            *(_halving(8 * width, 8 * width) for _ in range(num_halvings)),
            nn.Flatten(),
            nn.Linear(8 * width * 16, 1),
        )
        self.apply(_draw)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        size = (3, self.image_size, self.image_size)
        if tuple(image.shape[1:]) != size:
            raise UserError(f"image must be {size}, since a linear layer fixes it; got {tuple(image.shape[1:])}")
        features = self.shared(image)
        return self.whole(features), self.patches(features)


def _layer(inputs: int, outputs: int, kernel_size: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel_size, stride=stride), BatchNorm2d(outputs), nn.ReLU())


def _conv(
    inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, dilation: int = 1, bias: bool = False
) -> nn.Conv2d:
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(
        inputs, outputs, kernel_size, stride, padding, dilation=dilation, bias=bias, padding_mode="reflect"
    )


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


def _draw(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and scales of batch norm from N(1, 0.02), as DCGAN does (inferred)."""
    draw_normal(module)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, BatchNorm2d):
        nn.init.normal_(module.weight, mean=1, std=0.02)
