"""The Fourier unit by the definition of the transform (Suvorov et al. 2022): what the fast unit must equal."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.lama.networks import FourierUnit


def fourier_unit(features: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the output of the unit in eval mode, (N, C, H, W), by sums of cosines and sines.

    features: (N, C, H, W).
    weight: of the 1x1 convolution, (2 C, 2 C); channels are r0, i0, r1, i1, ...
    scale, shift: of batch norm with its statistics, (2 C,).
    """
    num_samples, channels, height, width = features.shape
    norm = math.sqrt(height * width)
    kept = width // 2 + 1
    rows, columns = torch.arange(height, dtype=features.dtype), torch.arange(width, dtype=features.dtype)
    outputs = []
    for sample in range(num_samples):
        spectrum = {}
        for u in range(height):
            for v in range(kept):
                angle = -2 * math.pi * (u * rows[:, None] / height + v * columns / width)
                parts = []
                for channel in range(channels):
                    parts.append((features[sample, channel] * angle.cos()).sum() / norm)
                    parts.append((features[sample, channel] * angle.sin()).sum() / norm)
                spectrum[u, v] = (scale * (weight @ torch.stack(parts)) + shift).clamp_min(0)
        maps = []
        for channel in range(channels):
            total = torch.zeros(height, width, dtype=features.dtype)
            for (u, v), parts in spectrum.items():
                # A real map has the mirrored frequency, too, except at v = 0 and at half an even width, whose own
                # imaginary parts of the lone axis the inverse transform leaves out.
                is_lone = v == 0 or 2 * v == width
                angle = 2 * math.pi * (u * rows[:, None] / height + v * columns / width)
                wave = parts[2 * channel] * angle.cos() - parts[2 * channel + 1] * angle.sin()
                total = total + (1 if is_lone else 2) * wave
            maps.append(total / norm)
        outputs.append(torch.stack(maps))
    return torch.stack(outputs)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, other): a small map beside the loop, and the paper's map beside its transforms alone.

    The paper's map is that of a residual block of the preset `paper` at 256x256: 384 global channels, of which the
    spectral transform hands 192 to its Fourier unit, at an eighth of the side.
    """
    torch.manual_seed(0)
    layer, wide = FourierUnit(16).eval(), FourierUnit(192).eval()
    paper = torch.randn(2, 192, 32, 32)
    features = torch.randn(2, 16, 16, 16)
    conv, norm = layer.layers[0], layer.layers[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale

    def fast() -> object:
        with torch.no_grad():
            return layer(features)

    def loop() -> object:
        with torch.no_grad():
            return fourier_unit(features, conv.weight[:, :, 0, 0], scale, shift)

    def fast_wide() -> object:
        with torch.no_grad():
            return wide(paper)

    def transforms() -> object:
        return torch.fft.irfft2(torch.fft.rfft2(paper, norm="ortho"), s=paper.shape[-2:], norm="ortho")

    return {
        "Fourier unit, 16 channels, 16x16": (fast, loop),
        "192x32x32, bare FFTs": (fast_wide, transforms),
    }
