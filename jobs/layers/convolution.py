"""Blocks of convolutions that several papers share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.normalization import InstanceNorm2d


class GatedConv2d(nn.Module):
    """Convolve, and scale every output by a learned gate in (0, 1).

    Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019: O = phi(W_f * I) . sigmoid(W_g * I).
    One convolution computes both halves, features first, gates second, so it has 2 * out_channels outputs. It pads with
    zeros, "same", symmetrically.

    out_channels: channels after gating.
    kernel_size: odd.
    activation: phi.

    forward(features):
        features: (N, in_channels, H, W), any range.
    Returns (N, out_channels, ceil(H / stride), ceil(W / stride)).
    Raises ValueError for an even kernel_size.
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


class ConvNormReLU(nn.Sequential):
    """Convolve with bias, then apply an affine instance norm and ReLU.

    Padding is zeros, "same"; an even kernel (4 with stride 2) has padding 1.

    forward(features):
        features: (N, in_channels, H, W), any range, H and W even if stride is 2.
    Returns (N, out_channels, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, dilation: int = 1
    ) -> None:
        padding = dilation * ((kernel_size - 1) // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation),
            InstanceNorm2d(out_channels, affine=True),
            nn.ReLU(),
        )


class ResidualBlock(nn.Module):
    """Compute x + norm(conv(ConvNormReLU(x))) without a ReLU after the sum. The kernels are 3x3.

    dilation: of the first convolution.

    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.block = nn.Sequential(
            ConvNormReLU(channels, channels, dilation=dilation),
            nn.Conv2d(channels, channels, 3, padding=1),
            InstanceNorm2d(channels, affine=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.block(features)
