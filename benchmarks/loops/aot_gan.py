"""The AOT block place by place (Zeng et al. 2021): what the fast block must equal, and its price."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.aot_gan.networks import AOTBlock


def block(layer: AOTBlock, features: Tensor) -> Tensor:
    """Return the output of a block for features (N, C, H, W), one place after the other."""

    def conv(conv2d: nn.Conv2d, inputs: Tensor) -> Tensor:
        rate = conv2d.dilation[0]
        _, height, width = inputs.shape
        padded = F.pad(inputs[None], [rate] * 4, mode="reflect")[0]
        out = torch.empty(conv2d.out_channels, height, width, dtype=inputs.dtype)
        for y in range(height):
            for x in range(width):
                window = padded[:, y : y + 2 * rate + 1 : rate, x : x + 2 * rate + 1 : rate]
                out[:, y, x] = (conv2d.weight * window).sum((1, 2, 3)) + conv2d.bias
        return out

    outputs = []
    for sample in features:
        fused = conv(layer.fuse, torch.cat([conv(branch, sample).clamp_min(0) for branch in layer.branches]))
        view = conv(layer.gate, sample)
        gate = torch.empty_like(view)
        for channel, plane in enumerate(view):
            mean = plane.sum() / plane.numel()
            variance = ((plane - mean) ** 2).sum() / (plane.numel() - 1)
            gate[channel] = 1 / (1 + torch.exp(-5 * (2 * (plane - mean) / (variance + 1e-10).sqrt() - 1)))
        outputs.append(sample * (1 - gate) + fused * gate)
    return torch.stack(outputs)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, loop): a narrow block on two small maps."""
    torch.manual_seed(0)
    layer = AOTBlock(64)
    features = torch.randn(2, 64, 32, 32)

    def fast() -> object:
        with torch.no_grad():
            return layer(features)

    def loop() -> object:
        with torch.no_grad():
            return block(layer, features)

    return {"AOT block, 64 channels, 32x32": (fast, loop)}
