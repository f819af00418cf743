"""DeepFill v2's networks: the two-stage gated generator and SN-PatchGAN. Channels are counted after gating."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from files.errors import UserError
from jobs.layers.attention import ContextualAttention
from jobs.layers.convolution import GatedConv2d
from jobs.layers.initialisation import draw_glorot
from jobs.recipe.padding import check_sides


class Generator(nn.Module):
    """Predict the hole coarsely, paste the prediction, and refine it with and without attention to the known parts.

    Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, Fig. 3.

    width: channels of the first layer.
    guided: whether a sketch is part of the input.
    mask_pool: how the attention shrinks the mask; see `ContextualAttention`.

    forward(image, mask, sketch=None):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
        sketch: (N, 1, H, W), 1 = edge, required if guided. It is read inside the hole only.
    Returns the coarse and the refined image, each (N, 3, H, W) in (-1, 1).
    Raises UserError if H or W is no multiple of 8, and for a guided generator without a sketch.
    """

    def __init__(self, *, width: int, guided: bool = False, mask_pool: Literal["nearest", "max"] = "nearest") -> None:
        super().__init__()
        self.guided = guided
        c = width
        self.coarse = nn.Sequential(
            GatedConv2d(6 if guided else 5, c, 5),
            GatedConv2d(c, 2 * c, stride=2),
            GatedConv2d(2 * c, 2 * c),
            GatedConv2d(2 * c, 4 * c, stride=2),
            GatedConv2d(4 * c, 4 * c),
            GatedConv2d(4 * c, 4 * c),
            *_dilated(4 * c),
            GatedConv2d(4 * c, 4 * c),
            GatedConv2d(4 * c, 4 * c),
            *_decoder(c),
        )
        self.hallucination = nn.Sequential(
            GatedConv2d(3, c, 5),
            GatedConv2d(c, c, stride=2),
            GatedConv2d(c, 2 * c),
            GatedConv2d(2 * c, 2 * c, stride=2),
            GatedConv2d(2 * c, 4 * c),
            GatedConv2d(4 * c, 4 * c),
            *_dilated(4 * c),
        )
        self.before_attention = nn.Sequential(
            GatedConv2d(3, c, 5),
            GatedConv2d(c, c, stride=2),
            GatedConv2d(c, 2 * c),
            GatedConv2d(2 * c, 4 * c, stride=2),
            GatedConv2d(4 * c, 4 * c),
            GatedConv2d(4 * c, 4 * c, activation=F.relu),
        )
        self.attention = ContextualAttention(mask_pool=mask_pool)
        self.after_attention = nn.Sequential(GatedConv2d(4 * c, 4 * c), GatedConv2d(4 * c, 4 * c))
        self.merge = nn.Sequential(GatedConv2d(8 * c, 4 * c), GatedConv2d(4 * c, 4 * c), *_decoder(c))
        self.apply(draw_glorot)

    def forward(self, image: Tensor, mask: Tensor, sketch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_sides(image, 8)
        if self.guided and sketch is None:
            raise UserError("a guided generator needs a sketch; pass zeros where nothing is drawn")
        known = image * (1 - mask)
        hints = [sketch * mask] if self.guided else []
        # The ones distinguish zeros in the hole from zero padding at the border.
        coarse = self.coarse(torch.cat((known, *hints, torch.ones_like(mask), mask), dim=1))
        return coarse, self._refine(coarse * mask + known, mask)

    def _refine(self, pasted: Tensor, mask: Tensor) -> Tensor:
        hallucinated = self.hallucination(pasted)
        features = self.before_attention(pasted)
        attended = self.after_attention(self.attention(features, features, mask))
        return self.merge(torch.cat((hallucinated, attended), dim=1))


class Discriminator(nn.Module):
    """Score every place of every channel of a strided, spectrally normalised feature map (SN-PatchGAN).

    Yu et al., ICCV 2019, Sec. 3.3.

    width: channels of the first layer.
    guided: whether a sketch is part of the input.
    last_activation: whether the scores pass a LeakyReLU.

    forward(image, mask, sketch=None):
        image: (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
        sketch: (N, 1, H, W), zero outside the hole; only if guided.
    Returns scores (N, 4 * width, ceil(H / 64), ceil(W / 64)), without a sigmoid.
    """

    def __init__(self, *, width: int, guided: bool = False, last_activation: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 5 if guided else 4
        for factor in (1, 2, 4, 4, 4, 4):
            conv = nn.Conv2d(in_channels, factor * width, 5, stride=2, padding=2)
            # Draw the weights before spectral_norm, which estimates their sigma at once.
            draw_glorot(conv)
            layers += [spectral_norm(conv, n_power_iterations=1, eps=1e-12), nn.LeakyReLU(0.2)]
            in_channels = factor * width
        self.stages = nn.Sequential(*(layers if last_activation else layers[:-1]))

    def forward(self, image: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor:
        return self.stages(torch.cat((image, mask) if sketch is None else (image, mask, sketch), dim=1))


def _dilated(channels: int) -> list[nn.Module]:
    return [GatedConv2d(channels, channels, dilation=dilation) for dilation in (2, 4, 8, 16)]


def _decoder(width: int) -> list[nn.Module]:
    """Return the layers from 4 * width channels at a quarter of the size to an image in (-1, 1)."""
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        GatedConv2d(4 * width, 2 * width),
        GatedConv2d(2 * width, 2 * width),
        nn.Upsample(scale_factor=2, mode="nearest"),
        GatedConv2d(2 * width, width),
        GatedConv2d(width, width // 2),
        nn.Conv2d(width // 2, 3, 3, padding=1),
        nn.Tanh(),
    ]
