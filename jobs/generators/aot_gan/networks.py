"""AOT-GAN's networks: the generator of AOT blocks and the discriminator of soft masks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from jobs.layers.initialisation import draw_normal
from jobs.recipe.padding import check_sides
from jobs.recipe.precision import widen

RATES = (1, 2, 4, 8)
"""Dilation rates of an AOT block's branches; each has a quarter of the channels."""

SMALLEST_SIDE = 4 * max(RATES) + 1
"""Shortest side of an image, in pixels, before padding: a map must be larger than its padding by reflection."""

GateNorm = Literal["rsqrt", "released"]


class Generator(nn.Module):
    """Halve the image twice, apply AOT blocks, and double it twice.

    Zeng et al., 2021, Sec. 3.1; layers of the authors' code, without normalisation. The first layer and the blocks pad
    by reflection, all others with zeros.

    width: channels of the first layer.
    blocks: number of AOT blocks.
    gate_norm: see `AOTBlock`.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read; the network sees 1 (white) there.
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1].
    Raises UserError if H or W is no multiple of 4, or less than 36.
    """

    def __init__(self, *, width: int, blocks: int, gate_norm: GateNorm = "rsqrt") -> None:
        super().__init__()
        c = width
        self.encoder = nn.Sequential(
            nn.Conv2d(4, c, 7, padding=3, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1),
            nn.ReLU(),
        )
        self.middle = nn.Sequential(*(AOTBlock(4 * c, gate_norm) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            _double(), nn.Conv2d(4 * c, 2 * c, 3, padding=1), nn.ReLU(),
            _double(), nn.Conv2d(2 * c, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, 3, 3, padding=1),
        )  # fmt: skip
        self.apply(draw_normal)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        check_sides(image, 4, 4 * (max(RATES) + 1))
        seen = torch.cat((image * (1 - mask) + mask, mask), dim=1)
        return torch.tanh(self.decoder(self.middle(self.encoder(seen))))


class AOTBlock(nn.Module):
    """Fuse four dilated convolutions of the features, and mix the result with the features by a gate.

    Zeng et al., 2021, Sec. 3.1: out = x (1 - g) + fuse(branches) g. The kernels are 3x3.

    channels: a multiple of 4.
    gate_norm: normalisation of the gate's map, see `normalise_gate`.

    forward(features):
        features: (N, channels, H, W), any range, H and W larger than 8.
    Returns the same shape.
    """

    def __init__(self, channels: int, gate_norm: GateNorm = "rsqrt") -> None:
        super().__init__()
        self.gate_norm = gate_norm
        self.branches = nn.ModuleList(_conv(channels, channels // len(RATES), rate) for rate in RATES)
        self.fuse = _conv(channels, channels)
        self.gate = _conv(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        fused = self.fuse(torch.cat([F.relu(branch(features)) for branch in self.branches], dim=1))
        gate = normalise_gate(self.gate(features), self.gate_norm).sigmoid().to(features.dtype)
        return features * (1 - gate) + fused * gate


def normalise_gate(features: Tensor, norm: GateNorm) -> Tensor:
    """Give every sample and channel the mean -5 and the deviation 10, which closes the gate on most places.

    features: (N, C, H, W), any range.
    norm: "rsqrt" divides by sqrt(variance + 1e-10); "released" by deviation + 1e-9, as the authors' code. The variance
        is unbiased. The first form has a bounded gradient where a channel is constant.
    Returns the same shape, in float32 at least.
    """
    wide = widen(features)
    variance, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True)
    centred = wide - mean
    normalised = centred * torch.rsqrt(variance + 1e-10) if norm == "rsqrt" else centred / (variance.sqrt() + 1e-9)
    return 5 * (2 * normalised - 1)


class Discriminator(nn.Module):
    """Predict a map that is 1 where an image is real: five 4x4 convolutions with strides 2, 2, 2, 1, 1.

    Zeng et al., 2021, Sec. 3.2; layers of the authors' code. All but the last have spectral norm and no bias.

    width: channels of the first layer.

    forward(image):
        image: (N, 3, H, W) in [-1, 1], H and W at least 24.
    Returns raw scores (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = []
        for number, stride in enumerate((2, 2, 2, 1)):
            conv = nn.Conv2d(widths[number], widths[number + 1], 4, stride=stride, padding=1, bias=False)
            draw_normal(conv)  # before the spectral norm, which starts from the largest singular value
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        draw_normal(last)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def _conv(inputs: int, outputs: int, rate: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, padding_mode="reflect")


def _double() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
