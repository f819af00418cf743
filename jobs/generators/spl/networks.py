"""SPL's generator: image encoder, semantic prior learner, modulated middle and decoder.

Outside, images are in [-1, 1]; encoder and prior learner see them in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from jobs.generators.spl.normalization import BasicRegionNorm, LearnableRegionNorm
from jobs.layers.convolution import NarrowConv2d
from jobs.layers.normalization import SPADE
from jobs.recipe.padding import check_sides


class EncoderStage(nn.Module):
    """ReLU(RN-B(convolution)).

    conv: the convolution.
    channels: of its output.
    region_bias: see `BasicRegionNorm`.
    forward(features, mask):
        features: (N, C, H, W), any range.
        mask: (N, 1, any, any), 1 = hole.
    """

    def __init__(self, conv: nn.Module, channels: int, *, region_bias: bool) -> None:
        super().__init__()
        self.conv = conv
        self.norm = BasicRegionNorm(channels, region_bias=region_bias)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(features), mask))


class ResidualDenseBlock(nn.Module):
    """x + conv1x1([x, y_1, ..., y_n]), where y_i = ReLU(conv3x3([x, y_1, ..., y_(i-1)])).

    growth: channels of each y_i.
    layers: n.
    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int, *, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + number * growth, growth, 3, padding=1) for number in range(layers)
        )
        self.fusion = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        grown = features
        for layer in self.layers:
            grown = torch.cat((grown, F.relu(layer(grown))), dim=1)
        return features + self.fusion(grown)


class FusionConv2d(nn.Conv2d):
    """A 1x1 convolution over several maps, without concatenating them first.

    The convolution is linear: it is a sum over maps, each convolved with a slice of the weight. At the paper's size
    that saves a copy of 4096 channels, 64 MiB per image of 256 x 256.
    forward(maps):
        maps: `num_maps` tensors (N, channels, H, W), any range.
    Returns (N, out_channels, H, W).
    """

    def __init__(self, channels: int, num_maps: int, out_channels: int) -> None:
        super().__init__(num_maps * channels, out_channels, 1)
        self.num_maps = num_maps

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        first, *others = self.weight.chunk(self.num_maps, dim=1)
        total = F.conv2d(maps[0], first, self.bias)
        for features, weight in zip(maps[1:], others, strict=True):
            total = total + F.conv2d(features, weight)
        return total


class ResidualBlock(nn.Module):
    """x + conv3x3(ReLU(conv3x3(x))), reflection padding, no norm, no activation after the sum.

    forward(features):
        features: (N, channels, H, W), any range; H and W are at least 2.
    Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.block(features)


class ModulatedBlock(nn.Module):
    """x + conv(ReLU(SPADE(conv(ReLU(SPADE(x)))))), 3x3, the first with dilation 2; no activation after the sum.

    hidden: channels inside SPADE.
    forward(features, layout):
        features: (N, channels, H, W), any range; H and W are at least 3.
        layout: (N, channels, H, W), any range.
    Returns the same shape.
    """

    def __init__(self, channels: int, *, hidden: int) -> None:
        super().__init__()
        self.norm1 = SPADE(channels, channels, hidden)
        self.conv1 = nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(channels, channels, 3, dilation=2))
        self.norm2 = SPADE(channels, channels, hidden)
        self.conv2 = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3))

    def forward(self, features: Tensor, layout: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(features, layout)))
        return features + self.conv2(F.relu(self.norm2(inner, layout)))


class SemanticPriorLearner(nn.Module):
    """Predict the teacher's features of the complete image from the enlarged image with a hole.

    width: channels of the first layer.
    prior_channels: channels of the teacher's features.
    growth, dense_blocks, dense_layers: of the residual dense blocks.
    residual_blocks: number of plain residual blocks after them.
    checkpoint_blocks: whether the backward pass recomputes the activations inside dense blocks.
    forward(seen):
        seen: (N, 4, 2H, 2W), the image in [0, 1] with a white hole, and the mask; H and W are multiples of 4.
    Returns the layout, (N, 4 * width, H/4, W/4), which modulates the generator, and the predicted prior,
    (N, prior_channels, H/4, W/4), a linear function of the layout at each place.
    """

    def __init__(
        self,
        *,
        width: int,
        prior_channels: int,
        growth: int,
        dense_blocks: int,
        dense_layers: int,
        residual_blocks: int,
        checkpoint_blocks: bool,
    ) -> None:
        super().__init__()
        wide = 4 * width
        self.checkpoint_blocks = checkpoint_blocks
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(4, width, 7),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * width, wide, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide, wide, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.conv = nn.Conv2d(wide, wide, 3, padding=1)
        self.dense = nn.ModuleList(
            ResidualDenseBlock(wide, growth=growth, layers=dense_layers) for _ in range(dense_blocks)
        )
        self.fusion = FusionConv2d(wide, dense_blocks, wide)
        self.fused = nn.Conv2d(wide, wide, 3, padding=1)
        self.residual = nn.Sequential(*(ResidualBlock(wide) for _ in range(residual_blocks)))
        self.head = nn.Conv2d(wide, prior_channels, 1)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(seen)
        maps = [self.conv(encoded)]
        for block in self.dense:
            maps.append(_run(block, maps[-1], checkpointed=self.checkpoint_blocks))
        # The encoder's output is added here, not that of the first 3x3 convolution.
        layout = self.residual(self.fused(self.fusion(maps[1:])) + encoded)
        return layout, self.head(layout)


class Generator(nn.Module):
    """Fill the hole, guided by semantics that are predicted at the same time.

    Zhang et al., "Context-Aware Image Inpainting with Learned Semantic Priors", IJCAI 2021.
    width: channels of the first layers.
    prior_channels, growth, dense_blocks, dense_layers, residual_blocks: of the prior learner, see
        `SemanticPriorLearner`.
    modulated_blocks: number of blocks in the middle.
    hidden: channels inside SPADE.
    threshold: of the decoder's norms, see `LearnableRegionNorm`.
    region_bias: of the encoder's norms, see `BasicRegionNorm`.
    checkpoint_blocks: whether the backward pass recomputes the activations inside dense and modulated blocks.
    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1], H and W multiples of 4, at least 12; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
    Returns the image, (N, 3, H, W) in (-1, 1), and the predicted prior, (N, prior_channels, H/4, W/4).
    Raises UserError for another H or W.
    """

    def __init__(
        self,
        *,
        width: int,
        prior_channels: int,
        growth: int,
        dense_blocks: int,
        dense_layers: int,
        residual_blocks: int,
        modulated_blocks: int,
        hidden: int,
        threshold: float,
        region_bias: bool = False,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        narrow, middle, wide = width, 2 * width, 4 * width
        self.checkpoint_blocks = checkpoint_blocks
        first = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, narrow, 7))
        self.encoder = nn.ModuleList(
            (
                EncoderStage(first, narrow, region_bias=region_bias),
                EncoderStage(nn.Conv2d(narrow, middle, 4, stride=2, padding=1), middle, region_bias=region_bias),
                EncoderStage(nn.Conv2d(middle, wide, 4, stride=2, padding=1), wide, region_bias=region_bias),
            )
        )
        self.semantics = SemanticPriorLearner(
            width=width,
            prior_channels=prior_channels,
            growth=growth,
            dense_blocks=dense_blocks,
            dense_layers=dense_layers,
            residual_blocks=residual_blocks,
            checkpoint_blocks=checkpoint_blocks,
        )
        self.middle = nn.ModuleList(ModulatedBlock(wide, hidden=hidden) for _ in range(modulated_blocks))
        self.decoder = nn.Sequential(
            nn.Conv2d(wide, 4 * middle, 3, padding=1),
            nn.PixelShuffle(2),
            LearnableRegionNorm(threshold),
            nn.ReLU(),
            nn.Conv2d(middle, 4 * narrow, 3, padding=1),
            nn.PixelShuffle(2),
            LearnableRegionNorm(threshold),
            nn.ReLU(),
            nn.ReflectionPad2d(3),
            NarrowConv2d(narrow, 3, 7),
            nn.Tanh(),
        )

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        check_sides(image, 4, smallest=12)
        white = (image + 1) / 2 * (1 - mask) + mask
        features = white
        for stage in self.encoder:
            features = stage(features, mask)
        seen = F.interpolate(torch.cat((white, mask), dim=1), scale_factor=2, mode="nearest")
        layout, prior = self.semantics(seen)
        for block in self.middle:
            features = _run(block, features, layout, checkpointed=self.checkpoint_blocks)
        return self.decoder(features), prior


def _run(block: nn.Module, *inputs: Tensor, checkpointed: bool) -> Tensor:
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
