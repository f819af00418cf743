"""LaMa's networks: the generator of fast Fourier convolutions and the discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.layers.convolution import NarrowConv2d
from jobs.layers.normalization import BatchNorm2d, TwiceDifferentiableBatchNorm2d
from jobs.recipe.padding import check_sides
from jobs.recipe.precision import wide_dtype

MULTIPLE = 8
SMALLEST_SIDE = 9
"""Shortest side of an image, in pixels, before padding: a map of one cell cannot be padded by reflection."""

GLOBAL_SHARE = 3 / 4
"""Share of the channels that see the whole map (the paper's ratio)."""


class Generator(nn.Module):
    """Halve the image three times, apply residual blocks of Fourier convolutions, and double it three times.

    Suvorov et al., WACV 2022, Sec. 2.2 and the authors' code. Convolutions pad by reflection.

    width: channels of the first layer.
    blocks: number of residual blocks.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1].
    Raises UserError if H or W is no multiple of 8, or less than 16.
    """

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        c = width
        self.layers = nn.Sequential(
            *_layer(4, c, 7),
            *_layer(c, 2 * c, 3, stride=2),
            *_layer(2 * c, 4 * c, 3, stride=2),
            *_layer(4 * c, 8 * c, 3, stride=2),  # the last halving has local and global outputs, from a local input
            *(FourierBlock(8 * c) for _ in range(blocks)),
            *_double(8 * c, 4 * c),
            *_double(4 * c, 2 * c),
            *_double(2 * c, c),
            NarrowConv2d(c, 3, 7, reflect=3),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        check_sides(image, MULTIPLE, 2 * MULTIPLE)
        known = (image + 1) / 2 * (1 - mask)
        return 2 * torch.sigmoid(self.layers(torch.cat((known, mask), dim=1))) - 1


class FourierBlock(nn.Module):
    """Compute x + layer(layer(x)), where a layer is a Fourier convolution, batch norm and ReLU.

    Suvorov et al., WACV 2022, Fig. 2, and the authors' code: a ReLU ends the residual branch, and nothing follows the
    sum.

    channels: of input and output, a multiple of 8.

    forward(features):
        features: (N, channels, H, W), any range; local channels first.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            FourierConvolution(channels), BatchNorm2d(channels), nn.ReLU(),
            FourierConvolution(channels), BatchNorm2d(channels), nn.ReLU(),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class FourierConvolution(nn.Module):
    """Convolve local and global channels with each other, and the global ones with themselves by their spectrum.

    Chi et al., "Fast Fourier Convolution", NeurIPS 2020, as in Suvorov et al., WACV 2022: local' = conv(local) +
    conv(global), global' = conv(local) + spectral(global). One convolution of the local channels gives both outputs.

    channels: of input and output, a multiple of 8. The first quarter is local.

    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_global = int(channels * GLOBAL_SHARE)
        self.num_local = channels - self.num_global
        self.from_local = _conv(self.num_local, channels, 3)
        self.global_to_local = _conv(self.num_global, self.num_local, 3)
        self.spectral = SpectralTransform(self.num_global)

    def forward(self, features: Tensor) -> Tensor:
        local, whole = features.split((self.num_local, self.num_global), dim=1)
        return self.from_local(local) + torch.cat((self.global_to_local(whole), self.spectral(whole)), dim=1)


class SpectralTransform(nn.Module):
    """Compute conv(x + fourier(x)) at half the channels, where x = ReLU(norm(conv(features))). Kernels are 1x1.

    Chi et al., NeurIPS 2020, Sec. 3.2, without the local Fourier unit, as in LaMa's released settings.

    channels: of input and output, even.

    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), BatchNorm2d(half), nn.ReLU())
        self.fourier = FourierUnit(half)
        self.leave = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        entered = self.enter(features)
        return self.leave(entered + self.fourier(entered))


class FourierUnit(nn.Module):
    """Convolve the spectrum of every map by 1x1: each output value depends on the whole map.

    Chi et al., NeurIPS 2020, Sec. 3.2. Real and imaginary parts are channels in turn: r0, i0, r1, i1, ... Computed in
    float32 at least.

    channels: of input and output.

    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 1, bias=False), BatchNorm2d(2 * channels), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            spectrum = torch.fft.rfft2(features.to(dtype), norm="ortho")
            parts = torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).flatten(1, 2)  # (N, 2 C, H, W / 2 + 1)
            convolved = self.layers(parts.contiguous())
            parts = convolved.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
            # Without the size, an odd width would come back even.
            maps = torch.fft.irfft2(torch.view_as_complex(parts), s=features.shape[-2:], norm="ortho")
        return maps.to(features.dtype)


class Discriminator(nn.Module):
    """Score patches of 142x142 pixels, and show the features of every layer.

    Wang et al., "High-Resolution Image Synthesis with Conditional GANs", CVPR 2018 (pix2pixHD), as in LaMa's code: 4x4
    convolutions with padding 2 and strides 2, 2, 2, 2, 1, 1. Batch norm can be differentiated twice, which R1 needs.

    width: channels of the first layer.

    forward(image):
        image: (N, 3, H, W) in [0, 1].
    Returns the outputs of the five hidden layers and, last, the scores (N, 1, H/16 + 3, W/16 + 3).
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width, 8 * width)
        self.stages = nn.ModuleList()
        for number, stride in enumerate((2, 2, 2, 2, 1)):
            stage = nn.Sequential(nn.Conv2d(widths[number], widths[number + 1], 4, stride, 2))
            if number > 0:
                stage.append(TwiceDifferentiableBatchNorm2d(widths[number + 1]))
            self.stages.append(stage.append(nn.LeakyReLU(0.2)))
        self.stages.append(nn.Conv2d(widths[-1], 1, 4, 1, 2))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


def _conv(inputs: int, outputs: int, kernel_size: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False, padding_mode="reflect")


def _layer(inputs: int, outputs: int, kernel_size: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    return _conv(inputs, outputs, kernel_size, stride=stride), BatchNorm2d(outputs), nn.ReLU()


def _double(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return conv, BatchNorm2d(outputs), nn.ReLU()
