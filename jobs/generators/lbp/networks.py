"""LBP's two U-Nets and its discriminators. Wu et al. 2021; images and maps of patterns in [-1, 1]."""

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
    """L: predict the map of local binary patterns from its known part.

    forward(patterns, unknown): (N, 1, H, W) each, patterns in [-1, 1], unknown 1 = hole. H and W multiples of 2^levels.
    Returns (N, 1, H, W), in (-1, 1). Pixels under the hole are not read. Raises ValueError for another H or W.
    """

    def __init__(self, width: int = 64, levels: int = 8) -> None:
        super().__init__()
        self.unet = UNet(2, 1, width=width, levels=levels, affine=False)

    def forward(self, patterns: Tensor, unknown: Tensor) -> Tensor:
        check_sides(patterns, 2**self.unet.levels)
        known = 1 - unknown
        return torch.tanh(self.unet(torch.cat((patterns * known, known), dim=1)))


class Generator(nn.Module):
    """G: the image, from its known part and from the patterns everywhere, with spatial attention in the decoder.

    The multi-level loss shows G complete images beside a mask, so blanking the hole is the caller's.
    forward(image, patterns, mask): (N, 3, H, W), blank in the hole; (N, 1, H, W); (N, 1, H, W), 1 = hole; H and W
        multiples of 2^levels. Returns the image, (N, 3, H, W) in (-1, 1), and the features that the multi-level loss
        compares, 2 * levels - 2 maps: encoder levels from the first to the last but one after their LeakyReLU, then the
        decoder's from the smallest on, after their norms. Raises ValueError for another H or W.
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
    """D_L and D_I: patch scores. Spectral norm on all convolutions, affine instance norm after the inner three.

    forward(image): (N, in_channels, H, W) in [-1, 1], H and W at least 24. Returns logits (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(self, in_channels: int, width: int = 64) -> None:
        super().__init__(in_channels, width, spectral=True, norm=True)
