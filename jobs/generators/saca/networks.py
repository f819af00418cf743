"""SACA's generator, its module of the same name, and its discriminator. The card says that this is a design."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.convolution import ConvNormReLU, ResidualBlock
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.initialisation import draw_normal
from jobs.layers.normalization import InstanceNorm2d
from jobs.recipe.padding import check_sides
from jobs.recipe.precision import wide_dtype


class SACA(nn.Module):
    """Semantic-aware context aggregation: describe soft regions by known cells, relate them, and return them to cells.

    A, (K, number of cells), assigns every cell softly to K regions. R_k is the mean of the region's known values.
    R' = R + softmax((R W_q)(R W_k)^T / sqrt(d)) (R W_v) relates the regions. The context of cell n is sum_k A_kn R'_k.
    Cost and memory grow with K times the number of cells, not with the square of that number. Softmax, means and
    relations are computed in float32 at least.

    channels: C, even; values have d = C / 2 channels.
    regions: K.
    forward(features, mask):
        features: (N, C, h, w), any range, more than one cell.
        mask: (N, 1, H, W), 1 = hole, at least as large as the features. A cell with any hole pixel is a hole. If all
            cells are holes, every region has the description 0.
    Returns features of the same shape, equal to the input until `gamma` has moved from 0, and the logits of the
    assignment, (N, K, h, w).
    """

    def __init__(self, channels: int, regions: int) -> None:
        super().__init__()
        inner = channels // 2
        self.assign = nn.Conv2d(channels, regions, 1)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)  # the norm below would remove a bias again
        self.region_query = nn.Linear(inner, inner, bias=False)
        self.region_key = nn.Linear(inner, inner, bias=False)
        self.region_value = nn.Linear(inner, inner, bias=False)
        self.output = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = InstanceNorm2d(channels, affine=True)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.assign(features)
        values = self.value(features)
        # Shares of a region may be tiny: in half precision their softmax and quotients would be noise.
        dtype = wide_dtype(features)
        with torch.autocast(features.device.type, enabled=False):
            assignment = logits.to(dtype).flatten(2).softmax(dim=1)  # (N, K, h*w)
            # The maximum, since with a mean half-covered cells would leak features of the hole into a description.
            hole = F.adaptive_max_pool2d(mask.to(dtype), features.shape[-2:]).flatten(2)  # (N, 1, h*w)
            regions = self.describe(assignment, values.to(dtype).flatten(2), hole)
            context = self.relate(regions).transpose(1, 2) @ assignment  # (N, d, h*w)
        context = context.unflatten(2, features.shape[-2:]).to(values.dtype)
        return features + self.gamma * self.norm(self.output(context)), logits

    def describe(self, assignment: Tensor, values: Tensor, hole: Tensor) -> Tensor:
        """Compute R, the mean value of each region's known cells, (N, K, d).

        assignment: (N, K, L) in [0, 1], L = h * w.
        values: (N, d, L).
        hole: (N, 1, L), 1 = hole.
        """
        weights = assignment * (1 - hole)
        return weights @ values.transpose(1, 2) / (weights.sum(dim=2, keepdim=True) + 1e-6)

    def relate(self, regions: Tensor) -> Tensor:
        """Compute R', which adds to each region's description those of related regions: (N, K, d) -> (N, K, d)."""
        scores = self.region_query(regions) @ self.region_key(regions).transpose(1, 2) / regions.shape[2] ** 0.5
        return regions + scores.softmax(dim=2) @ self.region_value(regions)


class Generator(nn.Module):
    """Down by 4, dilated residual blocks around one SACA module, up by 4 with skips and another module at half size.

    width: channels of the first layer.
    residual_blocks: their number, even; half of them are on each side of the bottleneck's module.
    regions: number of regions of each module.
    saca_at: places of the modules, any of "bottleneck" and "dec128".
    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1], H and W multiples of 4, at least 8; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns the image, (N, 3, H, W) in (-1, 1), and a list of the assignment's logits of each module,
    (N, regions, h, w), the bottleneck's first.
    Raises UserError for another H or W.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        residual_blocks: int = 8,
        regions: int = 32,
        saca_at: Collection[str] = ("bottleneck", "dec128"),
    ) -> None:
        super().__init__()
        c, half = width, residual_blocks // 2
        self.e0 = ConvNormReLU(4, c, 5)
        self.e1 = ConvNormReLU(c, 2 * c, 4, stride=2)
        self.e2 = ConvNormReLU(2 * c, 4 * c, 4, stride=2)
        self.mid1 = nn.Sequential(*(ResidualBlock(4 * c, dilation=2) for _ in range(half)))
        self.saca_high = SACA(4 * c, regions) if "bottleneck" in saca_at else None
        self.mid2 = nn.Sequential(*(ResidualBlock(4 * c, dilation=2) for _ in range(residual_blocks - half)))
        self.u1 = ConvNormReLU(4 * c + 2 * c, 2 * c)
        self.saca_low = SACA(2 * c, regions) if "dec128" in saca_at else None
        self.u0 = ConvNormReLU(2 * c + c, c)
        self.out = nn.Conv2d(c, 3, 3, padding=1)
        self.apply(draw_normal)  # EdgeConnect's start (inferred for this paper)

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        check_sides(image, 4, smallest=8)
        assignments: list[Tensor] = []

        def aggregate(saca: SACA | None, features: Tensor) -> Tensor:
            if saca is None:
                return features
            features, logits = saca(features, mask)
            assignments.append(logits)
            return features

        full = self.e0(torch.cat((image * (1 - mask), mask), dim=1))
        middle = self.e1(full)
        features = self.mid2(aggregate(self.saca_high, self.mid1(self.e2(middle))))
        features = aggregate(self.saca_low, self.u1(torch.cat((_doubled(features), middle), dim=1)))
        features = self.u0(torch.cat((_doubled(features), full), dim=1))
        return torch.tanh(self.out(features)), assignments


class Discriminator(PatchDiscriminator):
    """Score patches of whole images: spectral norm on all convolutions, no other norm, no sigmoid.

    forward(image):
        image: (N, 3, H, W) in [-1, 1]; H and W are at least 24.
    Returns scores, (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(3, width)


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
