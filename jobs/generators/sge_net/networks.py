"""SGE-Net's generator: predict a segmentation, estimate its confidence, and guide the next finer scale with it."""

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
    """SCEM: find the least confident hole cells of every sample.

    A cell's confidence is the largest of its class probabilities. The threshold is the ceil(share * n)-th smallest
    confidence among a sample's n hole cells. Hole cells at or below it are unreliable; equal confidences may make a few
    more. Known cells are not ranked, since they need no correction (inferred).
    probabilities: of the classes, (N, K, h, w).
    hole: (N, 1, h, w), 1 = hole.
    share: of the hole cells, in [0, 1].
    Returns (N, 1, h, w), 1 = unreliable, else 0, without gradient.
    """
    confidence = probabilities.detach().amax(dim=1, keepdim=True)  # (N, 1, h, w)
    is_hole = hole > 0
    # Known cells go to the end, so that one sort serves all samples.
    ranked = confidence.masked_fill(~is_hole, torch.inf).flatten(1).sort(dim=1).values
    number = is_hole.flatten(1).sum(dim=1, keepdim=True).double()  # so that share * number rounds as in Python
    place = ((share * number).ceil().long() - 1).clamp_min(0)
    threshold = ranked.gather(1, place).view(-1, 1, 1, 1)
    wanted = number.view(-1, 1, 1, 1) * share > 0  # a share of 0 asks for none
    return (is_hole & (confidence <= threshold) & wanted).to(hole.dtype)


class GuidedConv2d(nn.Module):
    """SPADE with a segmentation, LeakyReLU, and a 3x3 convolution.

    hidden: channels inside SPADE.
    forward(features, layout):
        features: (N, channels, H, W), any range.
        layout: class probabilities, (N, num_classes, H, W).
    Returns (N, channels, H, W).
    """

    def __init__(self, channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.spade = SPADE(channels, num_classes, hidden)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, layout: Tensor) -> Tensor:
        return self.conv(F.leaky_relu(self.spade(features, layout), 0.2))


class SemanticGuidedInference(nn.Module):
    """SGIM: compute features of the next finer scale, guided everywhere and corrected where the guide is unreliable.

    Liao et al., ECCV 2020, names and purpose; layers and the split in two steps are inferred.
    hidden: channels inside SPADE.
    forward(features, skip, probabilities, unreliable):
        features: (N, in_channels, h, w), any range.
        skip: of the encoder, (N, out_channels, 2 h, 2 w).
        probabilities: of the classes, (N, num_classes, h, w) in [0, 1].
        unreliable: (N, 1, h, w), 0 or 1.
    Returns (N, out_channels, 2 h, 2 w).
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
    """Segmentation and image at five scales; the segmentation of each scale guides the next finer one.

    Liao et al., "Guidance and Evaluation: Semantic-Aware Image Inpainting for Mixed Scenes", ECCV 2020.
    width: channels at full size.
    num_classes: number of labels, K.
    spade_hidden: channels inside SPADE.
    refined_shares: shares of the hole's cells that are refined on the way from scale 1, 2, 3 and 4, in [0, 1].
    forward(image, mask, all_scales):
        image: (N, 3, H, W) in [-1, 1]; pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
        all_scales: whether to predict at every scale; if not, only "image0" is returned, and the heads that it does not
            need are not computed.
    Returns "image0" to "image4", (N, 3, h, w) in (-1, 1), and "logits0" to "logits4", (N, K, h, w), where h and w are
    H and W divided by 2^scale.
    Raises UserError for sizes that the encoder refuses.
    """

    def __init__(
        self, *, width: int, num_classes: int, spade_hidden: int, refined_shares: tuple[float, float, float, float]
    ) -> None:
        super().__init__()
        self.refined_shares = refined_shares
        self.encoder = SemanticEncoder(width)
        self.heads = heads_of_all_scales(width, num_classes)
        self.inference = nn.ModuleList(  # index l leads from scale l + 1 to scale l
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
