"""SPL's region normalisation region by region, its fusion on concatenated maps, and how long both take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.spl.networks import FusionConv2d
from jobs.generators.spl.normalization import region_norm


def region_norm_loop(features: Tensor, region: Tensor, eps: float = 1e-5) -> Tensor:
    """`region_norm` from its definition: sample by sample, channel by channel, region by region."""
    height, width = features.shape[-2:]
    samples = []
    for sample, hole in zip(features, region[:, 0], strict=True):
        maps = []
        for x in sample:
            y = torch.zeros_like(x)
            for member in (hole == 1, hole == 0):
                values = x[member]
                if len(values) == 0:
                    continue
                share = len(values) / (height * width)
                mean = values.sum() / len(values)
                variance = (values - mean).square().sum() / len(values)
                y = y.masked_scatter(member, (values - mean) / (variance + eps / share).sqrt())
            maps.append(y)
        samples.append(torch.stack(maps))
    return torch.stack(samples)


def region_norm_two_passes(features: Tensor, region: Tensor, eps: float = 1e-5) -> Tensor:
    """The authors' way: fill the other region with this one's mean, instance normalisation, times sqrt(share)."""
    total = torch.zeros_like(features)
    for member in (region, 1 - region):
        count = member.sum((2, 3), keepdim=True).clamp_min(1)
        mean = (features * member).sum((2, 3), keepdim=True) / count
        filled = features * member + mean * (1 - member)
        share = count / region[0].numel()
        total = total + F.instance_norm(filled, eps=eps) * share.sqrt() * member
    return total


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Layer -> (fast, slow), on what it sees of two images of 256 x 256 pixels."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 64, 256, 256, generator=generator)
    mask = torch.zeros(2, 1, 256, 256)
    mask[:, :, 64:192, 64:192] = 1
    maps = [torch.randn(2, 256, 64, 64, generator=generator) for _ in range(16)]
    fusion = FusionConv2d(256, 16, 256)

    def fast() -> Tensor:
        return region_norm(features, mask)

    def fused() -> Tensor:
        with torch.no_grad():
            return fusion(maps)

    def concatenated() -> Tensor:
        with torch.no_grad():
            return F.conv2d(torch.cat(maps, dim=1), fusion.weight, fusion.bias)

    return {
        "region normalisation": (fast, lambda: region_norm_loop(features, mask)),
        "region normalisation, two passes": (fast, lambda: region_norm_two_passes(features, mask)),
        "fusion of 16 maps": (fused, concatenated),
    }
