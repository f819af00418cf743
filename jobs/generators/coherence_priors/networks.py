"""The generator of coherence priors: at every scale predict, let the hole copy within classes, and enlarge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.coherence_priors.attention import SemanticWiseAttention
from jobs.layers.convolution import ConvNormReLU, ResidualBlock
from jobs.layers.semantic import NUM_SCALES, SemanticEncoder, heads_of_all_scales, hole_cells, scale_channels

RATES = {1: 2, 2: 1, 3: 1, 4: 1}
"""Scale -> rate of its attention: all cells of scale 1 with all would be 16384^2 numbers per 256x256 image."""


class DilatedBlock(nn.Module):
    """Four convolutions dilated by 1, 2, 4 and 8, side by side, merged by a fifth and added to their input.

    forward(features): (N, channels, h, w), any range, channels a multiple of 4. Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvNormReLU(channels, channels // 4, dilation=d) for d in (1, 2, 4, 8))
        self.merge = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels, affine=True)
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.merge(torch.cat([branch(features) for branch in self.branches], dim=1))


class SemanticWisePropagation(nn.Module):
    """SWAP: semantic-wise attention, then dilated convolutions over foreground and background.

    Liao et al., CVPR 2021. forward(features, logits, hole): (N, channels, h, w); (N, K, h, w); (N, 1, h, w), 1 = hole.
    Returns (N, channels, h, w).
    """

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        self.attention = SemanticWiseAttention(rate=rate)
        self.dilated = DilatedBlock(channels)

    def forward(self, features: Tensor, logits: Tensor, hole: Tensor) -> Tensor:
        return self.dilated(self.attention(features, logits, hole))


class Enlargement(nn.Module):
    """From a scale to the next finer one: join the enlarged features with the encoder's, then two residual blocks.

    forward(features, skip): (N, in_channels, h, w); (N, out_channels, 2 h, 2 w). Returns the skip's shape.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNormReLU(in_channels + out_channels, out_channels),
            ResidualBlock(out_channels),
            ResidualBlock(out_channels),
        )

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        return self.layers(torch.cat((F.interpolate(features, scale_factor=2), skip), dim=1))


class Generator(nn.Module):
    """Segmentation and image at five scales, with attention within the predicted classes between the scales.

    Liao et al., "Image Inpainting Guided by Coherence Priors of Semantics and Textures", CVPR 2021; layers inferred.
    width: channels at full size, a multiple of 2.
    forward(image, mask): (N, 3, H, W) in [-1, 1]; (N, 1, H, W), 1 = hole. Pixels under the hole are not read.
    Returns "image0" to "image4" in (-1, 1) and "logits0" to "logits4" at H / 2^scale x W / 2^scale; with
        all_scales=False only "image0", and nothing else is computed. Raises ValueError for sizes the encoder refuses.
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        channels = scale_channels(width)
        self.encoder = SemanticEncoder(width)
        self.heads = heads_of_all_scales(width, num_classes)
        # Number l - 1 of each works at, or leads away from, scale l.
        self.propagation = nn.ModuleList(SemanticWisePropagation(channels[scale], RATES[scale]) for scale in RATES)
        self.enlargement = nn.ModuleList(Enlargement(channels[scale], channels[scale - 1]) for scale in RATES)

    def forward(self, image: Tensor, mask: Tensor, *, all_scales: bool = True) -> dict[str, Tensor]:
        features, skips = self.encoder(image, mask)
        predictions: dict[str, Tensor] = {}
        for scale in range(NUM_SCALES - 1, 0, -1):
            logits = predictions[f"logits{scale}"] = self.heads[scale].segmentation(features)
            if all_scales:
                predictions[f"image{scale}"] = self.heads[scale].image(features)
            propagated = self.propagation[scale - 1](features, logits, hole_cells(mask, scale))
            features = self.enlargement[scale - 1](propagated, skips[scale - 1])
        if not all_scales:
            return {"image0": self.heads[0].image(features)}
        predictions["logits0"], predictions["image0"] = self.heads[0](features)
        return predictions
