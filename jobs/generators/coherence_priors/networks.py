"""The generator of coherence priors: at every scale, predict, copy into the hole within classes, and enlarge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.coherence_priors.attention import SemanticWiseAttention
from jobs.layers.convolution import ConvNormReLU, ResidualBlock
from jobs.layers.normalization import InstanceNorm2d
from jobs.layers.semantic import NUM_SCALES, SemanticEncoder, heads_of_all_scales, hole_cells, scale_channels

RATES = {1: 2, 2: 1, 3: 1, 4: 1}
"""Scale -> rate of its attention. At rate 1, scale 1 would need 16384^2 similarities per 256x256 image."""


class DilatedBlock(nn.Module):
    """Four parallel convolutions dilated by 1, 2, 4 and 8, merged by a fifth and added to their input.

    channels: a multiple of 4.
    forward(features):
        features: (N, channels, h, w), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvNormReLU(channels, channels // 4, dilation=d) for d in (1, 2, 4, 8))
        self.merge = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), InstanceNorm2d(channels, affine=True))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.merge(torch.cat([branch(features) for branch in self.branches], dim=1))


class SemanticWisePropagation(nn.Module):
    """SWAP: semantic-wise attention, then dilated convolutions over foreground and background.

    Liao et al., CVPR 2021.
    rate: of the attention, see `SemanticWiseAttention`.
    forward(features, logits, hole):
        features: (N, channels, h, w), any range.
        logits: of the classes, (N, K, h, w).
        hole: (N, 1, h, w), 1 = hole.
    Returns (N, channels, h, w).
    """

    def __init__(self, channels: int, rate: int) -> None:
        super().__init__()
        self.attention = SemanticWiseAttention(rate=rate)
        self.dilated = DilatedBlock(channels)

    def forward(self, features: Tensor, logits: Tensor, hole: Tensor) -> Tensor:
        return self.dilated(self.attention(features, logits, hole))


class Enlargement(nn.Module):
    """Go to the next finer scale: join the enlarged features with the encoder's, then two residual blocks.

    forward(features, skip):
        features: (N, in_channels, h, w), any range.
        skip: of the encoder, (N, out_channels, 2 h, 2 w).
    Returns (N, out_channels, 2 h, 2 w).
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
    num_classes: number of labels, K.
    forward(image, mask, all_scales):
        image: (N, 3, H, W) in [-1, 1]; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
        all_scales: whether to predict at every scale; if not, only "image0" is returned, and the heads that it does not
            need are not computed.
    Returns "image0" to "image4", (N, 3, h, w) in (-1, 1), and "logits0" to "logits4", (N, K, h, w), where h and w are
    H and W divided by 2^scale.
    Raises UserError for sizes that the encoder refuses.
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        channels = scale_channels(width)
        self.encoder = SemanticEncoder(width)
        self.heads = heads_of_all_scales(width, num_classes)
        # Index l - 1 is propagation at scale l, and enlargement from scale l to l - 1.
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
