"""Context Encoder's networks and the regions of its centre variant."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from files.errors import UserError
from jobs.layers.initialisation import draw_normal
from jobs.layers.normalization import BatchNorm2d


class ChannelwiseFullyConnected(nn.Module):
    """Connect every place of a feature map with every place of the same map, and no map with another.

    Pathak et al., "Context Encoders", CVPR 2016, Sec. 3: m maps of n x n cost m * n^4 weights instead of m^2 * n^4.
    Map c is flattened to a_c, and y_c = W_c a_c + b_c. weight[c, p, q] leads from place p to place q.

    size: n.

    forward(features):
        features: (N, C, n, n), any range.
    Returns (N, C, n, n).
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, size * size, size * size))
        self.bias = nn.Parameter(torch.empty(channels, size * size))
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        places = features.flatten(2)  # (N, C, P)
        # Sec. 3
        return (torch.einsum("ncp,cpq->ncq", places, self.weight) + self.bias).view_as(features)


class Generator(nn.Module):
    """Fill the hole with one colour, encode the image to 4 x 4 places and decode it.

    Pathak et al., CVPR 2016, supplement's first figure; widths and layers of the authors' code.

    image_size: side of the images, in pixels.
    variant: "random" predicts the whole image, "centre" the central half of each side.
    width: channels of the first stage.
    bottleneck: "channelwise_fc" is the paper's layer, "conv" the authors' released network.
    bottleneck_units: channels of the bottleneck "conv".
    mask_channel: whether the mask is part of the input.
    fill: colour of the hole, RGB in [-1, 1].

    forward(image, mask):
        image: (N, 3, S, S) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, S, S), 1 = hole.
    Returns (N, 3, P, P) in (-1, 1), where P is S in the random variant and S / 2 in the centre variant.
    Raises UserError unless S is image_size, which the bottleneck fixes.
    """

    def __init__(
        self,
        *,
        image_size: int,
        variant: Literal["random", "centre"],
        width: int,
        bottleneck: Literal["channelwise_fc", "conv"],
        bottleneck_units: int,
        mask_channel: bool,
        fill: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.mask_channel = mask_channel
        self.register_buffer("fill", torch.tensor(fill).view(1, 3, 1, 1), persistent=False)
        widths = _stage_widths(image_size, width)
        output_size = image_size if variant == "random" else image_size // 2
        self.encoder = _downsampling(4 if mask_channel else 3, widths)
        if bottleneck == "channelwise_fc":
            self.bottleneck = nn.Sequential(
                ChannelwiseFullyConnected(widths[-1], 4),
                BatchNorm2d(widths[-1]),
                nn.LeakyReLU(0.2),
                nn.Conv2d(widths[-1], widths[-1], 1, bias=False),
                BatchNorm2d(widths[-1]),
                nn.ReLU(),
            )
        else:
            self.bottleneck = nn.Sequential(
                nn.Conv2d(widths[-1], bottleneck_units, 4, bias=False),  # 4 x 4 -> 1 x 1
                BatchNorm2d(bottleneck_units),
                nn.LeakyReLU(0.2),
                nn.ConvTranspose2d(bottleneck_units, widths[-1], 4, bias=False),
                BatchNorm2d(widths[-1]),
                nn.ReLU(),
            )
        # One stage per doubling from 4 to output_size. The widths are those of an encoder of that size, reversed.
        self.decoder = _upsampling(_stage_widths(output_size, width)[::-1])
        self.apply(_initialise)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        if image.shape[-2:] != (self.image_size, self.image_size):
            size, given = self.image_size, tuple(image.shape[-2:])
            raise UserError(f"Context Encoder's bottleneck fixes the size: H and W must be {size}, got {given}")
        filled = image * (1 - mask) + self.fill * mask
        if self.mask_channel:
            filled = torch.cat((filled, mask), dim=1)
        return self.decoder(self.bottleneck(self.encoder(filled)))


class Discriminator(nn.Module):
    """Judge the generator's prediction without mask and context.

    Pathak et al., CVPR 2016, Sec. 3.2; layers of the authors' code. A discriminator that sees the context recognises
    fakes by the seam around the hole.

    size: side of the predictions, in pixels.
    width: channels of the first stage.

    forward(image):
        image: (N, 3, size, size) in [-1, 1], the centre or the whole image.
    Returns logits (N, 1), one per image.
    """

    def __init__(self, *, size: int, width: int) -> None:
        super().__init__()
        widths = _stage_widths(size, width)
        self.stages = _downsampling(3, widths)
        self.score = nn.Conv2d(widths[-1], 1, 4, bias=False)  # 4 x 4 -> 1 x 1
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.score(self.stages(image)).flatten(1)


def central_half(image: Tensor) -> Tensor:
    """Cut out the middle half of each side: (N, C, S, S) -> (N, C, S / 2, S / 2)."""
    quarter = image.shape[-1] // 4
    return image[..., quarter:-quarter, quarter:-quarter]


def central_hole(mask: Tensor, overlap: int) -> Tensor:
    """Return the centre variant's hole in the shape of a mask: the central half less `overlap` pixels on each side."""
    hole = torch.zeros_like(mask)
    border = mask.shape[-1] // 4 + overlap
    hole[..., border:-border, border:-border] = 1.0
    return hole


def _stage_widths(size: int, width: int) -> list[int]:
    """Return the channels after each halving from `size` to 4: 64, 64, 128, 256, 512 at 128, one 64 more at 256."""
    num_stages = int(math.log2(size // 4))
    return [width] * (num_stages - 3) + [2 * width, 4 * width, 8 * width]


def _downsampling(in_channels: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, out_channels in enumerate(widths):
        layers.append(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False))
        if number > 0:
            layers.append(BatchNorm2d(out_channels))
        layers.append(nn.LeakyReLU(0.2))
        in_channels = out_channels
    return nn.Sequential(*layers)


def _upsampling(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise(widths):
        layers.append(nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False))
        layers += [BatchNorm2d(out_channels), nn.ReLU()]
    layers += [nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and the norm's scale from N(1, 0.02), and set its shift to 0, as the code."""
    draw_normal(module)
    if isinstance(module, BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
        nn.init.zeros_(module.bias)
