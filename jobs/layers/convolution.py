"""Blocks of convolutions that several papers share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from jobs.layers.normalization import InstanceNorm2d
from jobs.recipe.precision import wide_dtype


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


class NarrowConv2d(nn.Conv2d):
    """Convolve with a large kernel to few channels, such as the three of an image, faster than PyTorch's layer.

    A kernel for three channels fills three places of a processor's vectors of 8 or 16. Here one convolution computes
    the outputs of every row of the kernel, kernel_size * out_channels maps, and the maps are added up, each shifted by
    the number of its row. Parameters, their names and initial values are PyTorch's. It cannot be differentiated twice.

    kernel_size: of both sides.
    reflect: number of pixels by which the features are mirrored at each side before.

    forward(features):
        features: (N, in_channels, H, W), any range.
    Returns (N, out_channels, H', W'), where each side is the former one + 2 * reflect - kernel_size + 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, reflect: int = 0) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=reflect, padding_mode="reflect")

    def forward(self, features: Tensor) -> Tensor:
        if pixels := self.padding[0]:
            features = F.pad(features, (pixels,) * 4, mode="reflect")
        rows = self.weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)  # (K * C_out, C_in, 1, K)
        output = _SumOfRows.apply(F.conv2d(features, rows), self.kernel_size[0])
        return output + self.bias.to(output.dtype)[:, None, None]


class _SumOfRows(torch.autograd.Function):
    """Compute out[n, c, y, x] = sum over r of maps[n, r * C + c, y + r, x], for r < num_rows, in float32 at least."""

    @staticmethod
    def forward(ctx, maps: Tensor, num_rows: int) -> Tensor:
        ctx.num_rows = num_rows
        maps = maps.unflatten(1, (num_rows, -1))  # (N, R, C, H + R - 1, W)
        height = maps.shape[3] - num_rows + 1
        total = maps[:, 0, :, :height].to(wide_dtype(maps), copy=True)
        for row in range(1, num_rows):
            total += maps[:, row, :, row : row + height]
        return total.to(maps.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        samples, channels, height, width = gradient.shape
        maps = gradient.new_zeros(samples, ctx.num_rows, channels, height + ctx.num_rows - 1, width)
        for row in range(ctx.num_rows):
            maps[:, row, :, row : row + height] = gradient
        return maps.flatten(1, 2), None


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
