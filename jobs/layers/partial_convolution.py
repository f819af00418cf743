"""Partial convolution (Liu et al., ECCV 2018). M is the paper's mask, 1 = valid: here it is 1 - mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from files.errors import UserError
from jobs.layers.normalization import BatchNorm2d


class PartialConv2d(nn.Conv2d):
    """Convolve valid pixels only, make up for the missing ones, and shrink the hole.

    Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, Eq. 1 and 2. For every
    window, x' = W^T(X . M) sum(1) / sum(M) + b and m' = 1 where sum(M) > 0; x' = 0 and m' = 0 elsewhere. Sums are over
    the window and all input channels. Beyond the border everything is hole.

    in_channels: channels per group. All channels of a group share one mask of one channel. In the decoder of a U-Net
        there are two groups: the decoded and the skipped features.
    kernel_size: odd; the padding is zeros, "same".
    forward(*groups):
        groups: a pair per group: features (N, in_channels[i], H, W), any range, and M (N, 1, H, W), exactly 0 or 1, of
            float32 at least. Features where M is 0 are not read, not even NaN.
    Returns features (N, out_channels, H', W') and M (N, 1, H', W') in M's type; H' = ceil(H / stride).
    Raises UserError for an even kernel, and for groups with other numbers of channels.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, kernel_size: int, *, stride: int = 1, bias: bool = False
    ) -> None:
        if kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd for symmetric padding, got {kernel_size}")
        super().__init__(sum(in_channels), out_channels, kernel_size, stride, kernel_size // 2, bias=bias)
        self.group_channels = tuple(in_channels)
        nn.init.kaiming_normal_(self.weight)  # fan_in
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, *groups: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        given = tuple(features.shape[1] for features, _ in groups)
        if given != self.group_channels:
            raise UserError(f"groups must have {self.group_channels} channels, got {given}")
        # Eq. 1, beginning with X . M. Select instead of multiplying, since NaN * 0 is NaN.
        known = [torch.where(valid > 0, features, 0) for features, valid in groups]
        joined = torch.cat(known, dim=1) if len(known) > 1 else known[0]
        summed = F.conv2d(joined, self.weight, None, self.stride, self.padding)
        scale, valid = self._scale([valid for _, valid in groups])
        features = (summed * scale).to(summed.dtype)
        if self.bias is not None:
            features = features + (self.bias[:, None, None] * valid).to(summed.dtype)
        return features, valid

    @torch.no_grad()
    def _scale(self, masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute sum(1) / sum(M), which is 0 where no pixel is valid, and the next M; both (N, 1, H', W').

        masks: M of every group, (N, 1, H, W).
        """
        # A pool that divides by 1 sums a window, and autocast leaves it in float32. bfloat16 cannot represent all
        # counts up to 9,216. One channel per group is enough: its count is multiplied by the group's channels.
        counts = [F.avg_pool2d(m, self.kernel_size, self.stride, self.padding, divisor_override=1) for m in masks]
        num_valid = sum(channels * count for channels, count in zip(self.group_channels, counts, strict=True))
        valid = (num_valid > 0).to(num_valid.dtype)  # Eq. 2
        window = self.weight[0].numel()
        return valid * window / num_valid.clamp_min(1), valid


class PartialStage(nn.Module):
    """Partial convolution, batch norm, activation.

    activation: None for none.
    norm: whether there is a batch norm.
    forward(*groups):
        groups: pairs of features and M as in `PartialConv2d`, all of one size.
    Returns features and M.
    """

    def __init__(self, conv: PartialConv2d, activation: nn.Module | None, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = BatchNorm2d(conv.out_channels) if norm else None
        self.activation = activation

    def forward(self, *groups: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        features, valid = self.conv(*groups)
        if self.norm is not None:
            features = self.norm(features)
        if self.activation is not None:
            features = self.activation(features)
        return features, valid
