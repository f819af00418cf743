"""Partial convolution as Liu et al. 2018 write it, window by window: what the fast layer must equal, and its price."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.layers.partial_convolution import PartialConv2d


def partial_convolution(
    features: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, stride: int
) -> tuple[Tensor, Tensor]:
    """Eq. 1 and 2, with a mask of as many channels as the features, as the authors state it.

    features, valid: (N, C, H, W); valid 1 where known. weight: (C_out, C, k, k). Returns features (N, C_out, H', W')
    and the next mask, 1 where known, (N, C_out, H', W').
    """
    num_samples, channels, height, width = features.shape
    out_channels, _, size, _ = weight.shape
    window = channels * size * size  # sum(1)
    outputs, masks = [], []
    for sample in range(num_samples):
        for y in range(-(size // 2), height - size // 2, stride):
            for x in range(-(size // 2), width - size // 2, stride):
                rows, columns = slice(max(y, 0), y + size), slice(max(x, 0), x + size)
                # What lies beyond the border is neither summed nor valid, but belongs to the window.
                mask = valid[sample, :, rows, columns]
                top, left = max(-y, 0), max(-x, 0)
                taps = weight[:, :, top : top + mask.shape[1], left : left + mask.shape[2]]
                count = float(mask.sum())
                if count > 0:
                    known = torch.where(mask == 1, features[sample, :, rows, columns], 0)
                    value = (taps * known).sum((1, 2, 3)) * (window / count)
                    outputs.append(value if bias is None else value + bias)
                else:
                    outputs.append(features.new_zeros(out_channels))
                masks.append(features.new_full((out_channels,), float(count > 0)))
    shape = (num_samples, -(-height // stride), -(-width // stride), out_channels)
    return tuple(torch.stack(values).view(shape).permute(0, 3, 1, 2) for values in (outputs, masks))


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): the first and the last layer, at the paper's width, on two images of 256x256."""
    return {
        "PartialConv2d enc1, 7x7, stride 2, 3 -> 64": _pair((3,), 64, 7, 2),
        "PartialConv2d dec1, 3x3, 64 + 3 -> 3": _pair((64, 3), 3, 3, 1),
    }


def _pair(
    in_channels: tuple[int, ...], out_channels: int, kernel_size: int, stride: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    layer = PartialConv2d(in_channels, out_channels, kernel_size, stride=stride)
    groups = []
    for number, channels in enumerate(in_channels):
        valid = torch.ones(2, 1, 256, 256)
        valid[:, :, 64 + 8 * number : 192 - 8 * number, 64:192] = 0
        groups.append((torch.randn(2, channels, 256, 256, generator=generator), valid))
    features = torch.cat([features for features, _ in groups], dim=1)
    dense = torch.cat([valid.expand_as(features) for features, valid in groups], dim=1)

    def fast() -> object:
        with torch.no_grad():
            return layer(*groups)

    def loop() -> object:
        with torch.no_grad():
            return partial_convolution(features, dense, layer.weight, layer.bias, stride)

    return fast, loop
