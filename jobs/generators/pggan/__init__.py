"""Patch-Based Image Inpainting with Generative Adversarial Networks (PGGAN). Demir and Unal, arXiv 1803.07422, 2018.

The name means a patch GAN and a global GAN in one. It is not Progressive Growing of GANs, which is also called PGGAN.
The authors released no code.

Built: both generators, `variant="dres"` (two halvings, dilated residual blocks) and `variant="res"` (three halvings,
plain residual blocks); and the discriminator, whose first layers are shared by a branch with one score for the image
and a branch with one score per patch. Parameters: generator 6,662,595 (res: 26,721,987); discriminator 13,324,866
(18,504,002 at image_size=512).

Needs: nothing but image and mask. The mask may have any shape and any number of holes: the discriminator never sees
it. Training needs images of image_size, since a linear layer of the discriminator fixes it. Inpainting takes any H x W,
pads image and mask by reflection to a multiple of 4 (res: 8) and crops back. With the default five dilated blocks, H
and W must be at least 65.

Verified, in a review of the paper by another author: two halvings with dilated blocks and three with plain blocks; the
order convolution, norm, ReLU, convolution and nothing after the sum; dilation rates 1, 2, 4, ... that double with each
block; resizing followed by a convolution in place of transposed convolutions; a discriminator with shared layers, one
global score and 1 x 256 patch scores at 256 pixels; binary cross-entropy; L1 over the whole image with weight 0.995 and
0.0025 for each of the two adversarial terms.

Recalled from the paper, not read again: the linear layer that joins all patch scores (`patch_fc`).

Inferred, since the paper's text was not at hand:
- Batch norm (the review says "norm"); reflection padding in the generator; four input channels, the image with its
  hole at 0 and the mask; tanh.
- Five residual blocks: the smallest number whose receptive field at a quarter of the size exceeds 256 pixels.
- The dilated convolution is the first of a block (`block`); the paper shows both orders.
- Bilinear resizing (`resize`); the paper names bilinear and bicubic.
- The widths of the discriminator and the layer at which it divides; kernels of 4, as in DCGAN.
- The discriminator sees the raw output (`adversarial_on`): the L1 covers the whole image, and the seam of a composite
  would be an easy clue.
- The generator minimises -log D, not log(1 - D), which has no gradient once the discriminator wins.
- The weights belong to images in [-1, 1] here; the paper's range is not known.
- Adam with 2e-4 and betas (0.5, 0.999), batch 16, initial weights from N(0, 0.02), one update of each network per step,
  and the number of steps: 100 epochs of Paris StreetView.

No results are compared: the paper's tables were not readable.

On a GPU the gradient of bilinear and bicubic resizing is a scatter-add, which may differ from run to run;
`resize="nearest"` has a deterministic gradient (read in PyTorch's documentation, not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Patch-Based Image Inpainting with Generative Adversarial Networks (Demir and Unal)"
YEAR: int = 2018
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 6_662_595, "generator_d": 13_324_866}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of PGGAN. Defaults are the paper's as far as they are known, else inferred.

    variant: "dres" halves the image twice and has dilated blocks; "res" halves it three times and has plain blocks.
    block: which convolution of a dilated block is dilated; without effect for "res".
    image_size: side of training images in pixels, a power of two of at least 64; the discriminator fixes it.
    resize: how the decoder doubles the size before each convolution.
    patch_fc: whether a linear layer joins all patch scores.
    adversarial_on: the image that the discriminator sees: the generator's output, or the filled image.

    Raises ValueError for another image_size, and for more blocks than training images of image_size can be padded for.
    """

    variant: Literal["dres", "res"] = "dres"
    block: Literal["dilated_first", "dilated_second"] = "dilated_first"  # inferred
    image_size: int = 256  # paper; also 512
    width: int = 64  # channels of the generator's first layer
    d_width: int = 64  # channels of the discriminator's first layer
    blocks: int = 5  # residual blocks; inferred
    resize: Literal["bilinear", "bicubic", "nearest"] = "bilinear"  # inferred
    patch_fc: bool = True  # recalled
    adversarial_on: Literal["raw", "composite"] = "raw"  # inferred

    reconstruction_weight: float = 0.995  # paper
    global_weight: float = 0.0025  # paper
    patch_weight: float = 0.0025  # paper

    learning_rate: float = 2e-4  # inferred, as all below
    d_learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 16
    steps: int = 93_000

    def __post_init__(self) -> None:
        if self.image_size < 64 or self.image_size & (self.image_size - 1):
            raise ValueError(f"image_size must be a power of two of at least 64, got {self.image_size}")
        if not 1 <= self.blocks <= 12:
            raise ValueError(f"blocks must be 1 to 12, since each doubles the dilation; got {self.blocks}")
        if self.smallest_side > self.image_size:
            raise ValueError(
                f"{self.blocks} dilated blocks need images of at least {self.smallest_side} pixels, image_size is "
                f"{self.image_size}; lower blocks"
            )

    @property
    def multiple(self) -> int:
        """H and W of the generator's input are multiples of it."""
        return 4 if self.variant == "dres" else 8

    @property
    def largest_dilation(self) -> int:
        """Dilation rate of the last residual block."""
        return 2 ** (self.blocks - 1) if self.variant == "dres" else 1

    @property
    def smallest_side(self) -> int:
        """Shortest side of an image, in pixels: a map must be larger than its padding by reflection."""
        return self.multiple * self.largest_dilation + 1

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: 64 x 64 pixels, narrow."""
        return cls(image_size=64, width=4, d_width=4, blocks=2, batch_size=4, steps=1)

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            image_size=64,
            width=16,
            d_width=16,
            blocks=4,  # receptive field 165 pixels
            learning_rate=1e-3,
            batch_size=16,
            steps=800,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            image_size=128,
            width=32,
            d_width=32,
            steps=20_000,
        )
