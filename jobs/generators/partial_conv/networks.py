"""PartialConv's U-Net (Liu et al., ECCV 2018). M is the paper's mask, 1 = valid: here it is 1 - mask."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.partial_convolution import PartialConv2d, PartialStage
from jobs.recipe.padding import check_sides


class Generator(nn.Module):
    """A U-Net of partial convolutions: halve image and mask `levels` times, double them again, with skips of both.

    Liu et al., ECCV 2018, Sec. 3.2 and the supplement's table. Level n has width * min(2^(n-1), 8) channels.
    The encoder has stages of levels 1 to `levels`; the first has no batch norm. The decoder has the stages back, in
    order of execution; the last, without norm and activation, also sees the image.
    width: channels of the first layer.
    levels: number of halvings.
    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1], H and W multiples of 2^levels; pixels under the hole are not read.
        mask: (N, 1, H, W), exactly 0 or 1, 1 = hole.
    Returns the output, (N, 3, H, W), unbounded, and the mask of pixels that are still hole, (N, 1, H, W): a few pixels
    far from all known ones, where the output is 0.
    Raises UserError for another H or W.
    """

    def __init__(self, *, width: int, levels: int) -> None:
        super().__init__()
        self.multiple = 2**levels
        widths = [3, *(width * min(2**n, 8) for n in range(levels))]
        self.encoder = nn.ModuleList()
        for level in range(1, levels + 1):
            kernel_size = {1: 7, 2: 5, 3: 5}.get(level, 3)
            conv = PartialConv2d((widths[level - 1],), widths[level], kernel_size, stride=2)
            self.encoder.append(PartialStage(conv, nn.ReLU(), norm=level > 1))
        self.decoder = nn.ModuleList()
        for level in range(levels, 1, -1):
            conv = PartialConv2d((widths[level], widths[level - 1]), widths[level - 1], 3)
            self.decoder.append(PartialStage(conv, nn.LeakyReLU(0.2)))
        # The only bias: the other stages have that of batch norm, except for the first, which has none.
        self.decoder.append(PartialStage(PartialConv2d((widths[1], 3), 3, 3, bias=True), None, norm=False))

    @property
    def encoder_norms(self) -> tuple[str, ...]:
        """Return the dotted names of the encoder's batch norms, which fine-tuning freezes."""
        return tuple(f"encoder.{number}.norm" for number in range(1, len(self.encoder)))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        check_sides(image, self.multiple)
        levels = [(image, 1 - mask)]
        for stage in self.encoder:
            levels.append(stage(levels[-1]))
        features, valid = levels.pop()
        for stage, skip in zip(self.decoder, reversed(levels), strict=True):
            features, valid = stage((_doubled(features), _doubled(valid)), skip)
        return features.to(image.dtype), 1 - valid  # losses are computed in full precision


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")
