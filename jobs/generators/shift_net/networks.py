"""Shift-Net's generator. Its discriminator is the shared `PatchDiscriminator`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.shift_net.shift import Shift
from jobs.layers.feature_mask import shrink_by_vote
from jobs.layers.unet import UNet
from jobs.recipe.padding import check_sides

SHIFT_LEVEL = 3
"""L - 3, the paper's name for the third transposed convolution from the output: maps of 1/8 of the size."""


class Generator(nn.Module):
    """A U-Net that rearranges the encoder's features by its decoder's guess, at an eighth of the size.

    Yan et al., "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018. At the shift level the
    decoder sees [decoded, encoded, shifted] instead of [decoded, encoded].
    width: channels of the first layer.
    levels: halvings down to the deepest map.
    mask_channel: whether the network sees the mask beside the image, 1 = known.
    fill: colour in the hole, RGB in [-1, 1].
    mask_pool: reduction of the mask to cells: "vote", averages and a threshold; "max", any hole pixel makes a hole.
    forward(image, mask, whole):
        image: (N, 3, H, W) in [-1, 1]; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
        whole: the image with its hole pixels, in training only; it is encoded without gradients, for the guidance loss.
    Returns a dict:
        "output": (N, 3, H, W) in (-1, 1).
        "decoded": the decoder's guess at the shift level, (N, 4 * width, H/8, W/8), at least 0.
        "hole": (N, 1, H/8, W/8), 1 = hole.
        "target": only with `whole`: the encoder's map of it, in the shape and range of "decoded".
    Raises UserError if H or W is no multiple of 2^levels.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        levels: int = 8,
        mask_channel: bool = True,
        fill: tuple[float, float, float] = (0.0, 0.0, 0.0),
        mask_pool: Literal["vote", "max"] = "vote",
    ) -> None:
        super().__init__()
        self.mask_channel = mask_channel
        self.mask_pool = mask_pool
        self.register_buffer("fill", torch.tensor(fill).view(1, 3, 1, 1), persistent=False)
        shifted = width * 2 ** (SHIFT_LEVEL - 1)
        self.unet = UNet(4 if mask_channel else 3, 3, width=width, levels=levels, join_channels={SHIFT_LEVEL: shifted})
        self.shift = Shift()

    def forward(self, image: Tensor, mask: Tensor, whole: Tensor | None = None) -> dict[str, Tensor]:
        check_sides(image, 2**self.unet.levels)
        skips = self.unet.encode(self._seen(image * (1 - mask) + self.fill * mask, mask))
        outputs = {"hole": self._hole_cells(mask)}
        if whole is not None:
            with torch.no_grad():
                outputs["target"] = F.relu(self.unet.encode(self._seen(whole, mask), levels=SHIFT_LEVEL)[-1])
        decoded = None
        for level in self.unet.upwards:
            joined = self.unet.join(level, decoded, skips)
            if level == SHIFT_LEVEL:
                outputs["decoded"], encoded = joined.chunk(2, dim=1)
                joined = torch.cat((joined, self.shift(outputs["decoded"], encoded, outputs["hole"])), dim=1)
            decoded = self.unet.up(level, joined)
        return outputs | {"output": torch.tanh(decoded)}

    def _seen(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.cat((image, 1 - mask), dim=1) if self.mask_channel else image

    def _hole_cells(self, mask: Tensor) -> Tensor:
        if self.mask_pool == "max":
            return F.max_pool2d(mask, 2**SHIFT_LEVEL)
        return shrink_by_vote(mask, times=SHIFT_LEVEL)
