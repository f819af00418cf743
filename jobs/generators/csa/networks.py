"""CSA's networks: the rough U-Net, the refinement network around the attention layer, the feature discriminator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from jobs.generators.csa.attention import CoherentSemanticAttention
from jobs.layers.composite import composite
from jobs.layers.feature_mask import shrink_by_vote
from jobs.layers.initialisation import draw_normal
from jobs.layers.normalization import InstanceNorm2d
from jobs.layers.unet import UNet
from jobs.recipe.padding import check_sides

CSA_LEVEL = 3  # the attention works at 1 / 2^3 of the size, as VGG-16's relu4_3


class RoughNetwork(nn.Module):
    """P: a plain U-Net that guesses the whole image.

    Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019, Sec. 3.1; layers of the authors' code.
    width: channels of the first layer.
    levels: number of halvings.
    fill: colour in the hole, RGB in [-1, 1].
    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole; it says where the colour is filled in, and no layer sees it.
    Returns the guess, (N, 3, H, W) in [-1, 1].
    Raises UserError if H or W is no multiple of 2^levels.
    """

    def __init__(self, *, width: int, levels: int, fill: tuple[float, float, float]) -> None:
        super().__init__()
        self.unet = UNet(3, 3, width=width, levels=levels)
        self.register_buffer("fill", torch.tensor(fill).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        check_sides(image, 2**self.unet.levels)
        return torch.tanh(self.unet(composite(self.fill, image, mask)))


class RefinementNetwork(nn.Module):
    """G: refine the guess by a deeper U-Net whose encoder contains the attention layer at an eighth of the size.

    Liu et al., ICCV 2019, Sec. 3.1 and 3.2; layers of the authors' code. Level n has width * min(2^n, 8) channels at
    1 / 2^n of the size. All norms are affine instance norms. Skips are taken after the norm, before the LeakyReLU.
    width, fill: as in `RoughNetwork`.
    levels: number of halvings, at least 4.
    attention: the attention layer.
    forward(rough, image, mask):
        rough: the guess, (N, 3, H, W) in [-1, 1]; it gets no gradient.
        image: (N, 3, H, W) in [-1, 1]; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole; it only says where the guess is pasted and which cells the attention replaces.
    Returns four tensors:
        the image, (N, 3, H, W), unbounded;
        "CSA(f)", the attention's output before its norm, (N, 8 * width, H / 8, W / 8), any range;
        "CSA_d", the decoder's map of the same size, in the shape and range of "CSA(f)";
        the hole's cells at that size, (N, 1, H / 8, W / 8), 1 = hole.
    Raises UserError if H or W is no multiple of 2^levels.
    """

    def __init__(
        self, *, width: int, levels: int, fill: tuple[float, float, float], attention: CoherentSemanticAttention
    ) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("fill", torch.tensor(fill).view(1, 3, 1, 1), persistent=False)
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.entry = nn.Conv2d(6, width, 3, padding=1)
        self.shallow = nn.ModuleList(_down(widths[n - 1], widths[n]) for n in range(1, CSA_LEVEL))
        self.before_attention = _down(widths[CSA_LEVEL - 1], widths[CSA_LEVEL], last_norm=False)
        self.attention = attention
        self.norm = InstanceNorm2d(widths[CSA_LEVEL], affine=True)
        self.deep = nn.ModuleList(_down(widths[n - 1], widths[n]) for n in range(CSA_LEVEL + 1, levels))
        self.deep.append(nn.Sequential(nn.LeakyReLU(0.2), _halving(widths[-2], widths[-1])))
        self.ups = nn.ModuleList([nn.Sequential(nn.ReLU(), *_doubling(widths[-1], widths[-2]))])
        self.ups.extend(_up(2 * widths[n], widths[n - 1]) for n in range(levels - 1, 0, -1))
        self.exit = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, 3, 3, padding=1))
        self.apply(draw_normal)

    def forward(self, rough: Tensor, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_sides(image, 2**self.levels)
        filled = composite(self.fill, image, mask)
        hole = shrink_by_vote(mask, CSA_LEVEL)
        skips = [self.entry(torch.cat((composite(rough.detach(), filled, mask), filled), dim=1))]
        for stage in self.shallow:
            skips.append(stage(skips[-1]))
        attended = self.attention(self.before_attention(skips[-1]), hole)
        skips.append(self.norm(attended))
        for stage in self.deep:
            skips.append(stage(skips[-1]))
        joined, decoded = skips.pop(), []
        for stage in self.ups:
            decoded.append(stage(joined))
            joined = torch.cat((decoded[-1], skips.pop()), dim=1)
        return self.exit(joined), attended, decoded[-CSA_LEVEL - 1], hole


class FeatureDiscriminator(nn.Module):
    """Score patches of the features of VGG-16's third pool as real or fake.

    Liu et al., ICCV 2019, Sec. 3.4; layers of the authors' code: 4x4 convolutions with padding 1, an instance norm
    without parameters after the second, no activation at the end.
    width: an eighth of the channels of every layer.
    strides: "code", the code's 2, 2, 2, or "figure", the paper's figure's 2, 1, 1.
    forward(features):
        features: (N, 256, h, w), any range; h and w are at least 8.
    Returns scores (N, 8 * width, h', w'), one per channel and place; h' is h / 8, or h / 2 - 2 with "figure".
    """

    def __init__(self, *, width: int, strides: Literal["code", "figure"] = "code") -> None:
        super().__init__()
        wide, stride = 8 * width, 2 if strides == "code" else 1
        self.stages = nn.Sequential(
            nn.Conv2d(256, wide, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 4, stride=stride, padding=1),
            InstanceNorm2d(wide),
            nn.LeakyReLU(0.2),
            nn.Conv2d(wide, wide, 4, stride=stride, padding=1),
        )
        self.apply(draw_normal)

    def forward(self, features: Tensor) -> Tensor:
        return self.stages(features)


def _down(in_channels: int, out_channels: int, *, last_norm: bool = True) -> nn.Sequential:
    stage = nn.Sequential(
        nn.LeakyReLU(0.2),
        _halving(in_channels, in_channels),
        InstanceNorm2d(in_channels, affine=True),
        nn.LeakyReLU(0.2),
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
    )
    if last_norm:
        stage.append(InstanceNorm2d(out_channels, affine=True))
    return stage


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.ConvTranspose2d(in_channels, out_channels, 3, padding=1),
        InstanceNorm2d(out_channels, affine=True),
        nn.ReLU(),
        *_doubling(out_channels, out_channels),
    )


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=3, dilation=2)


def _doubling(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1),
        InstanceNorm2d(out_channels, affine=True),
    )
