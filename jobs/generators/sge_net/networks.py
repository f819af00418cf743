"""SGE-Net's generator: predict a segmentation, judge how sure it is, and let it guide the next finer scale."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.convolution import ConvNormReLU
from jobs.layers.normalization import SPADE
from jobs.layers.semantic import (
    NUM_SCALES,
    SemanticEncoder,
    class_probabilities,
    heads_of_all_scales,
    hole_cells,
    scale_channels,
)


def unreliable_cells(probabilities: Tensor, hole: Tensor, share: float) -> Tensor:
    """SCEM: the least sure `share` of every sample's hole cells, as 0 or 1; constant for the gradient.

    A cell's confidence is the largest of its class probabilities. The threshold is the ceil(share * n)-th smallest
    confidence among a sample's n hole cells (inferred: known cells are not ranked, they need no correction), and cells
    at or below it are unreliable; equal confidences may make a few more.
    probabilities: (N, K, h, w); hole: (N, 1, h, w), 1 = hole. Returns (N, 1, h, w).
    """
    confidence = probabilities.detach().amax(dim=1, keepdim=True)  # (N, 1, h, w)
    is_hole = hole > 0
    # One sort for all samples: known cells go to the end.
    ranked = confidence.masked_fill(~is_hole, torch.inf).flatten(1).sort(dim=1).values
    number = is_hole.flatten(1).sum(dim=1, keepdim=True).double()  # so that share * number rounds as in Python
    place = ((share * number).ceil().long() - 1).clamp_min(0)
    threshold = ranked.gather(1, place).view(-1, 1, 1, 1)
    wanted = number.view(-1, 1, 1, 1) * share > 0  # a share of 0 asks for none
    return (is_hole & (confidence <= threshold) & wanted).to(hole.dtype)


class GuidedConv2d(nn.Module):
    """A 3x3 convolution of LeakyReLU of features that a segmentation has normalised.

    forward(features, layout): (N, channels, H, W), any range; (N, num_classes, H, W), class probabilities.
    Returns (N, channels, H, W).
    """

    def __init__(self, channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.spade = SPADE(channels, num_classes, hidden)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, layout: Tensor) -> Tensor:
        return self.conv(F.leaky_relu(self.spade(features, layout), 0.2))


class SemanticGuidedInference(nn.Module):
    """SGIM: features of the next finer scale, guided everywhere, and corrected again where the guide is not reliable.

    Liao et al., ECCV 2020, names and purpose; layers and the split in two steps are inferred.
    forward(features, skip, probabilities, unreliable): (N, in_channels, h, w); (N, out_channels, 2 h, 2 w) from the
        encoder; (N, num_classes, h, w) in [0, 1]; (N, 1, h, w), 0 or 1. Returns (N, out_channels, 2 h, 2 w).
    """

    def __init__(self, in_channels: int, out_channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.fuse = ConvNormReLU(in_channels + out_channels, out_channels)
        self.guide = GuidedConv2d(out_channels, num_classes, hidden)
        self.refine = nn.ModuleList(GuidedConv2d(out_channels, num_classes, hidden) for _ in range(2))

    def forward(self, features: Tensor, skip: Tensor, probabilities: Tensor, unreliable: Tensor) -> Tensor:
        layout = F.interpolate(probabilities, scale_factor=2, mode="bilinear")
        fused = self.fuse(torch.cat((F.interpolate(features, scale_factor=2), skip), dim=1))
        guided = fused + self.guide(fused, layout)
        refined = guided
        for refine in self.refine:
            refined = refine(refined, layout)
        return guided + F.interpolate(unreliable, scale_factor=2).to(refined.dtype) * refined


class Generator(nn.Module):
    """Segmentation and image at five scales, each finer one guided by the segmentation of the one before.

    Liao et al., "Guidance and Evaluation: Semantic-Aware Image Inpainting for Mixed Scenes", ECCV 2020.
    width: channels at full size; spade_hidden: channels inside SPADE; refined_shares: of the hole's cells, how many are
        refined on the way from scale 1, 2, 3 and 4.
    forward(image, mask): (N, 3, H, W) in [-1, 1]; (N, 1, H, W), 1 = hole. Pixels under the hole are not read.
    Returns "image0" to "image4" in (-1, 1) and "logits0" to "logits4" at H / 2^scale x W / 2^scale; with
        all_scales=False only "image0", and nothing else is computed. Raises ValueError for sizes the encoder refuses.
    """

    def __init__(
        self, *, width: int, num_classes: int, spade_hidden: int, refined_shares: tuple[float, float, float, float]
    ) -> None:
        super().__init__()
        self.refined_shares = refined_shares
        self.encoder = SemanticEncoder(width)
        self.heads = heads_of_all_scales(width, num_classes)
        self.inference = nn.ModuleList(  # number l leads from scale l + 1 to scale l
            SemanticGuidedInference(coarse, fine, num_classes, spade_hidden)
            for fine, coarse in pairwise(scale_channels(width))
        )

    def forward(self, image: Tensor, mask: Tensor, *, all_scales: bool = True) -> dict[str, Tensor]:
        features, skips = self.encoder(image, mask)
        predictions: dict[str, Tensor] = {}
        for scale in range(NUM_SCALES - 1, 0, -1):
            logits = predictions[f"logits{scale}"] = self.heads[scale].segmentation(features)
            if all_scales:
                predictions[f"image{scale}"] = self.heads[scale].image(features)
            probabilities = class_probabilities(logits)
            unreliable = unreliable_cells(probabilities, hole_cells(mask, scale), self.refined_shares[scale - 1])
            features = self.inference[scale - 1](features, skips[scale - 1], probabilities, unreliable)
        if not all_scales:
            return {"image0": self.heads[0].image(features)}
        predictions["logits0"], predictions["image0"] = self.heads[0](features)
        return predictions
