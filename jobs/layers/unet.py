"""The U-Net of pix2pix, on which several papers build."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.initialisation import draw_normal
from jobs.layers.normalization import InstanceNorm2d


class UNet(nn.Module):
    """Halve the image `levels` times and double it again, with skips between equal sizes.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, Sec. 6.1. Every layer
    is a 4x4 (transposed) convolution with stride 2, padding 1 and bias. Level n has width * min(2^(n-1), 8) channels.
    Down: LeakyReLU 0.2 (not before the first), convolution, instance norm (not at the first nor at the deepest level).
    Up: ReLU of [decoded, skip], convolution, instance norm (not at the last). The skip of a level is its map after the
    norm and before the LeakyReLU. The output has no activation. Weights start from N(0, 0.02), biases from 0.

    in_channels: channels of the image.
    out_channels: channels of the output.
    width: channels of the first level.
    affine: whether instance norms have a scale and a shift.
    join_channels: level -> channels that a paper adds to the input of `up` at that level, such as {3: 256}.

    forward(image):
        image: (N, in_channels, H, W), H and W multiples of 2^levels. The deepest map may be 1x1.
    Returns (N, out_channels, H, W).

    A paper that puts a layer of its own between two levels calls the methods itself:
        skips = unet.encode(image); decoded = None
        for level in unet.upwards: decoded = unet.up(level, unet.join(level, decoded, skips))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        levels: int = 8,
        affine: bool = True,
        join_channels: dict[int, int] | None = None,
    ) -> None:
        super().__init__()
        extra = join_channels or {}
        widths = [in_channels, *(width * min(2**n, 8) for n in range(levels))]
        self.levels = levels
        self.downs = nn.ModuleList()
        for level in range(1, levels + 1):
            stage = nn.Sequential() if level == 1 else nn.Sequential(nn.LeakyReLU(0.2))
            stage.append(nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1))
            if 1 < level < levels:
                stage.append(InstanceNorm2d(widths[level], affine=affine))
            self.downs.append(stage)
        self.ups = nn.ModuleList()  # in order of execution, from the deepest level upwards
        for level in self.upwards:
            joined = widths[level] * (1 if level == levels else 2) + extra.get(level, 0)
            out = widths[level - 1] if level > 1 else out_channels
            stage = nn.Sequential(nn.ConvTranspose2d(joined, out, 4, stride=2, padding=1))
            if level > 1:
                stage.append(InstanceNorm2d(out, affine=affine))
            self.ups.append(stage)
        self.apply(draw_normal)

    @property
    def upwards(self) -> range:
        """Return the levels in the order in which they are decoded: levels, ..., 2, 1."""
        return range(self.levels, 0, -1)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))

    def encode(self, image: Tensor, levels: int | None = None) -> list[Tensor]:
        """Return the skips of levels 1, 2, ..., `levels` (all if None), level n at 1 / 2^n of the size."""
        skips = [image]
        for stage in self.downs[:levels]:
            skips.append(stage(skips[-1]))
        return skips[1:]

    def join(self, level: int, decoded: Tensor | None, skips: list[Tensor]) -> Tensor:
        """Return the input of `up` at a level: ReLU of [decoded, skip], or of the skip alone at the deepest level.

        decoded: output of `up` at the next deeper level; None at the deepest.
        skips: those of `encode`.
        """
        skip = skips[level - 1]
        return F.relu(skip if decoded is None else torch.cat((decoded, skip), dim=1))

    def up(self, level: int, joined: Tensor) -> Tensor:
        """Decode the map that `join` returned for a level to twice its size."""
        return self.ups[self.levels - level](joined)

    def decode(self, skips: list[Tensor], insert: dict[int, Callable[[Tensor], Tensor]] | None = None) -> Tensor:
        """Decode all skips to the output.

        insert: level -> function from the joined map of that level to the input of `up`.
        """
        decoded = None
        for level in self.upwards:
            joined = self.join(level, decoded, skips)
            if insert and level in insert:
                joined = insert[level](joined)
            decoded = self.up(level, joined)
        return decoded
