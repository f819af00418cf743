"""Convolutions that gate what they let through."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class GatedConv2d(nn.Module):
    """Convolve, and let a learned soft mask decide per channel and place how much of it passes.

    Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019: O = phi(W_f * I) . sigmoid(W_g * I).
    One convolution makes both halves, features first, gate second, so it has 2 * out_channels outputs.
    forward(features): (N, in_channels, H, W), any range. Returns (N, out_channels, ceil(H / stride), ceil(W / stride)).
    kernel_size is odd; padding is zeros, "same", symmetric.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        activation: Callable[[Tensor], Tensor] = F.elu,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd for symmetric padding, got {kernel_size}")
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, stride, padding, dilation)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        feature, gate = self.conv(features).chunk(2, dim=1)
        return self.activation(feature) * gate.sigmoid()
