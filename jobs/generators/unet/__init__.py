"""A plain U-Net: the baseline that every new idea should beat. Network of Isola, Zhu, Zhou, Efros (pix2pix), CVPR 2017.

Built: the U-Net of "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv 1611.07004, Sec. 6.1) with
four input channels, the image with its hole at 0 and the mask; L1 over the whole image; and, if `adversarial_weight` is
above 0, the patch discriminator of the same paper (70 x 70) with binary cross-entropy, on the filled image. Parameters:
generator 54,420,483; discriminator 2,764,737.

Nothing in it belongs to inpainting: no attention, no partial or gated convolution, no dilation, no second stage, no
feature network. So the distance of another generator to this row is the worth of its idea at the same data, masks and
budget. One option is an exception: with `first_guess="diffusion"`, ours and no paper's, the hole is first filled by a
coarse-to-fine diffusion, which scores as the classical methods do, and the network learns only what to add to it.

Needs: nothing but image and mask, of any shape. Images of H x W are padded by reflection to a multiple of 2^levels and
cropped back.

Differs from pix2pix, by our choice: no dropout; the instance norm of the papers here that build on this U-Net; the
discriminator has spectral norm and does not see the mask; the ratio of the weights of L1 and the adversarial term is
pix2pix's 100 : 1, on the scale where L1 has weight 1. Training settings are pix2pix's: Adam with 2e-4, betas
(0.5, 0.999); its batch of 1 is 16 here.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Plain U-Net (pix2pix network of Isola et al.)"
YEAR: int = 2017
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 54_420_483}

FirstGuess = Literal["none", "diffusion"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the plain U-Net.

    levels: halvings down to the deepest map; sides are padded to multiples of 2^levels.
    first_guess: "none", the network sees 0 in the hole; "diffusion", ours, the hole is filled smoothly first and the
        network predicts the difference, in the hole alone.
    adversarial_weight: of the patch discriminator's term; 0 trains by L1 alone, without a discriminator.

    Raises ValueError for less than one level and for a negative weight.
    """

    width: int = 64  # channels of the first level; paper
    levels: int = 8  # paper, for 256 pixels
    d_width: int = 64  # channels of the discriminator's first layer; paper
    first_guess: FirstGuess = "none"

    l1_weight: float = 1.0
    adversarial_weight: float = 0.0  # pix2pix: 0.01 beside L1 with weight 1

    learning_rate: float = 2e-4  # paper
    d_learning_rate: float = 2e-4  # paper
    beta1: float = 0.5  # paper
    beta2: float = 0.999  # paper
    batch_size: int = 16
    steps: int = 500_000

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")
        if self.adversarial_weight < 0:
            raise ValueError(f"adversarial_weight must be at least 0, got {self.adversarial_weight}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: narrow, five levels, with a discriminator."""
        return cls(width=4, levels=5, d_width=4, adversarial_weight=0.01, batch_size=4, steps=1)

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(width=24, levels=5, first_guess="diffusion", learning_rate=2e-3, steps=200)

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            levels=6,
            d_width=32,
            steps=20_000,
        )
