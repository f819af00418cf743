"""Free-Form Image Inpainting with Gated Convolution (DeepFill v2). Yu, Lin, Yang, Shen, Lu, Huang, ICCV 2019.

Built: the two-stage generator of gated convolutions with contextual attention in its second stage, and SN-PatchGAN.
`guided=True` is the paper's user-guided mode: generator and discriminator see a sketch inside the hole.

Needs: nothing but image and mask; guided also needs the column "edge". Any H x W: inpainting pads by reflection to a
multiple of 8 and crops back; training needs H and W to be multiples of 8.

Differs from the paper, as the authors' code does:
- Hinge terms of the discriminator are halved (the paper prints factor 1).
- The second stage sees only the pasted image: no mask, no ones, no sketch.
- LeakyReLU also follows the discriminator's last convolution; `d_last_activation=False` leaves it out.
- Known pixels count as much as hole pixels in l1, and l1 is computed on raw outputs.
Differs from the authors' code:
- Strided convolutions pad symmetrically; TensorFlow pads (0, 1) and (1, 2) on even sizes. With the authors' weights
  features would be shifted by a pixel.
- Nearest down-sampling in the attention takes every second pixel; theirs aligns corners. The two differ by a pixel.
- The pipeline draws one mask per sample and step; the authors' code draws one per batch, and its discriminator's step
  has a batch and a mask of its own. Here both updates of a step share one batch and one forward pass.
- Spectral normalisation is torch's: the gradient does not flow through the power iteration.
- Colours are RGB; theirs are BGR.
- steps: the code runs until it is stopped (max_iters 1e8) and the paper names no number; the default is 1,000,000, as
  in the code of DeepFill v1.
- guided: edges are those of the pipeline's column "edge", while the paper thresholds HED at 0.6. A share
  `sketch_dropout` of the training samples has an empty sketch (ours): without this, a guided network could not fill a
  hole without a sketch.
- mask_pool: with "nearest", the authors' and the default, the attention misses strokes thinner than 8 pixels and copies
  hole features as if they were known; "max" keeps them and is recommended for free-form masks.

If a side is no multiple of 8, the hole is mirrored with the image: the mirrored hole is unknown, too.

Not verified against the paper's text: Adam's betas (0.5 and 0.999 in the code; the author once gave 0.9 for the second)
and every statement about the paper. These come from its abstract, the authors' code and their answers to users.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested; all
other operations of the training are deterministic in that mode (read in PyTorch's documentation, not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Free-Form Image Inpainting with Gated Convolution (Yu et al.)"
YEAR: int = 2019
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 4_052_478, "generator_d": 5_946_816}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of DeepFill v2. Defaults are those of the authors' code where the paper is silent or differs.

    guided: whether the networks see a sketch inside the hole; needs the column "edge".
    sketch_dropout: share of samples trained without a sketch, in [0, 1]; only if guided.
    adversarial_weight: of the discriminator's term; 0 trains by l1 alone, without a discriminator.

    Raises ValueError for a width that cannot be halved, and for a share outside [0, 1].
    """

    width: int = 24  # channels of the first layer after gating; even. Code: 48 before gating
    d_width: int = 64  # channels of the discriminator's first layer; code
    guided: bool = False  # the mode is the paper's user-guided inpainting
    sketch_dropout: float = 0.5  # ours
    mask_pool: Literal["nearest", "max"] = "nearest"  # how the attention shrinks the mask; code
    d_last_activation: bool = True  # whether the scores pass a LeakyReLU; code

    l1_weight: float = 1.0  # of either stage; paper and code
    adversarial_weight: float = 1.0  # paper and code; users report better coarse results with 0.1

    learning_rate: float = 1e-4  # code
    d_learning_rate: float = 1e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.999  # code
    batch_size: int = 16  # code
    steps: int = 1_000_000  # code of DeepFill v1; the code of v2 runs without end

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, since a layer has half of it; got {self.width}")
        if not 0 <= self.sketch_dropout <= 1:
            raise ValueError(f"sketch_dropout must lie in [0, 1], got {self.sketch_dropout}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: narrow, two steps; any size whose sides are multiples of 8."""
        return cls(width=4, d_width=4, batch_size=2, steps=2)

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=8,
            d_width=8,
            mask_pool="max",  # a stroke is thinner than a cell of the attention at this size
            batch_size=16,
            learning_rate=1e-3,  # the paper's 1e-4 needs far more steps than a demo has
            d_learning_rate=1e-3,
            beta1=0.9,
            adversarial_weight=0.01,
            steps=500,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=12,
            d_width=32,
            steps=20_000,
        )
