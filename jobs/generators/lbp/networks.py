"""LBP's two U-Nets and its discriminators (Wu et al. 2021). Images and maps of patterns are in [-1, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.lbp.attention import SpatialAttention
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.unet import UNet
from jobs.recipe.padding import check_sides

ATTENTION_LEVEL = 3  # at an eighth of the size


class PatternGenerator(nn.Module):
    """L: predict the map of local binary patterns from its known pixels.

    width: channels of the first layer.
    levels: number of halvings.
    forward(patterns, unknown):
        patterns: (N, 1, H, W) in [-1, 1], H and W multiples of 2^levels; pixels under the hole are not read.
        unknown: (N, 1, H, W), 1 = hole.
    Returns patterns, (N, 1, H, W) in (-1, 1).
    Raises UserError for another H or W.
    """

    def __init__(self, width: int = 64, levels: int = 8) -> None:
        super().__init__()
        self.unet = UNet(2, 1, width=width, levels=levels, affine=False)

    def forward(self, patterns: Tensor, unknown: Tensor) -> Tensor:
        check_sides(patterns, 2**self.unet.levels)
        known = 1 - unknown
        return torch.tanh(self.unet(torch.cat((patterns * known, known), dim=1)))


class Generator(nn.Module):
    """G: paint the image from its known pixels and the patterns everywhere, with spatial attention in the decoder.

    width: channels of the first layer.
    levels: number of halvings, at least 4.
    attention_weights, self_match, mask_pool: of the attention, see `SpatialAttention`.
    forward(image, patterns, mask):
        image: (N, 3, H, W) in [-1, 1], H and W multiples of 2^levels. The caller blanks the hole, since the multi-level
            loss also shows G complete images beside a mask.
        patterns: (N, 1, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
    Returns the image, (N, 3, H, W) in (-1, 1), and the 2 * levels - 2 maps that the multi-level loss compares: the
    encoder's from the first to the last but one, after their LeakyReLU, then the decoder's from the smallest on, after
    their norms.
    Raises UserError for another H or W.
    """

    def __init__(
        self,
        width: int = 64,
        levels: int = 8,
        *,
        attention_weights: Literal["paper", "code"] = "paper",
        self_match: bool = False,
        mask_pool: Literal["nearest", "max"] = "nearest",
    ) -> None:
        super().__init__()
        borrowed = width * 2 ** (ATTENTION_LEVEL - 1)
        self.unet = UNet(5, 3, width=width, levels=levels, affine=False, join_channels={ATTENTION_LEVEL: borrowed})
        self.attention = SpatialAttention(weights=attention_weights, self_match=self_match, mask_pool=mask_pool)

    def forward(self, image: Tensor, patterns: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        check_sides(image, 2**self.unet.levels)
        skips = self.unet.encode(torch.cat((image, patterns, 1 - mask), dim=1))
        features = [F.leaky_relu(skip, 0.2) for skip in skips[:-1]]
        decoded = None
        for level in self.unet.upwards:
            joined = self.unet.join(level, decoded, skips)
            if level == ATTENTION_LEVEL:
                joined = self.attention(*joined.chunk(2, dim=1), mask)
            decoded = self.unet.up(level, joined)
            features.append(decoded)
        return torch.tanh(decoded), features[:-1]


class Discriminator(PatchDiscriminator):
    """D_L and D_I: score patches. Spectral norm on all convolutions, affine instance norm after the inner three.

    forward(image):
        image: (N, in_channels, H, W) in [-1, 1]; H and W are at least 24.
    Returns logits, (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(self, in_channels: int, width: int = 64) -> None:
        super().__init__(in_channels, width, spectral=True, norm=True)
