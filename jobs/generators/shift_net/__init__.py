"""Shift-Net: copy into the decoder's hole the encoder's features of the known cells most similar to its guess.

Yan, Li, Li, Zuo, Shan, "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018, arXiv 1801.09392.
The authors released two codes: the first (Torch7) made the paper's experiments; the second (PyTorch) changed many
defaults. Below they are "the first" and "the second".

What is built: a U-Net of eight levels with a shift-connection layer at an eighth of the size, trained with L1, the
guidance loss on the decoder's guess, and a 70x70 patch discriminator. One phase, discriminator first, then generator.
Parameters: generator 54,944,771 (54,943,747 without the mask channel), discriminator 2,766,529.
`losses="v2"` adds the second code's terms: style and content in VGG-16, and, where all holes are squares of one known
size (`hole_size`), L1 in the hole with less weight towards its middle; discriminator and VGG-16 then see the hole
alone.
Any H x W: inpainting mirrors image and mask up to a multiple of 2^levels and crops back; training needs such sides.
The authors say that it suits repeating structures (buildings); that after training on one kind of hole it fails on
another, even on the centred square moved by a pixel; and that larger batches cost quality with square holes.

Choices where the two codes differ:
- Guidance compares hole cells with hole cells, as in the first. The second leaves its target unmasked, and every known
  cell then gets a constant gradient. The mean here is over all elements of the maps (paper: exact norm unverified).
- Cells are made holes by three 4x4 averages and a threshold of 5/16, as in the first. The second takes every eighth
  pixel.
- Both lose strokes of a few pixels; with `mask_pool="max"`, which is ours, a single hole pixel makes a cell a hole.
- The network's input is RGB, 0 in the hole and a channel that is 1 where known, as in the second. The first has BGR, no
  channel and Context Encoder's mean colour in the hole: mask_channel=False, fill=(-0.0353, -0.1843, -0.0824) (in RGB).
- The discriminator has spectral norm and affine instance norm, as in the second and (unverified) the supplement. The
  first has batch norm, at batch size 1. It sees the whole, raw output, as in the first; the second crops square holes.
- All convolutions have biases, as in the second; the first sets them to 0 after each step. Before an instance norm they
  change nothing and get no gradient but rounding errors.
- A source is normalised by |E_x| + 1e-8, as in the first. The second adds nothing: one vector of zeros empties the map.
- The learning rate is constant; by the second's rule the last epoch runs at rate 0.
- The weights 100, 1 and 0.2 of L1, guidance and GAN are the paper's 1, 0.01 and 0.002 (second-hand) times 100, which
  leaves the paper's balance only up to how each term is averaged: in the paper guidance is a sum over hole cells.
Differs from both codes:
- Every sample has a mask and hole cells of its own. The first takes the first sample's for the whole batch; the second
  fails on holes of unequal size, or mixes samples.
- The truth is encoded no further than the shift level, without gradients, inside the same call that fills the hole;
  guidance is a loss with a name. Both codes run the whole network and inject the gradient in a backward pass.
- Features are copied by index, with a scatter-add as gradient, instead of products with a matrix of zeros and ones.
- Real and fake go through the discriminator as one batch: one power iteration per step, not two. Spectral norm starts
  from 15 power iterations (PyTorch's parametrization) instead of one.
- Norms start at scale 1 and shift 0, as in the second; the first draws the scale from uniform(0, 1).
- v2: for holes of another shape than hole_size, the crop is a square of that size at the top left of each hole's
  bounding box.
Not offered: least-squares, Wasserstein and relativistic losses, total variation (weight 0 in the second code), a weight
on the shift's gradient (1 in both), the "flip" variant, shift layers at other levels. Masks, crops and flips are the
pipeline's: the paper's hole is centred, 120 of 256 pixels; images are scaled to a short side of 350 and cropped.

Needs: nothing but image and mask; with losses="v2" VGG-16 features, unless style and content weights are both 0.
On a GPU, convolutions and their gradients, the shift's scatter-add and the gradient of v2's crops may differ from run
to run unless deterministic algorithms are requested; then all have deterministic kernels (read in PyTorch's
documentation, not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Shift-Net: Image Inpainting via Deep Feature Rearrangement (Yan et al.)"
YEAR: int = 2018
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 54_944_771, "generator_d": 2_766_529}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shift-Net's settings. "first" and "second" are the authors' two codes; the card lists where they differ.

    losses: "paper" has l1, guidance and adversarial; "v2" also has the terms marked v2.
    features: weights of VGG-16: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for fewer than four levels, which leave no decoder below the shift, for a hole_size below 24, too
    small for the discriminator, and for a hole_size with losses "paper", which does not use it.
    """

    width: int = 64  # channels of the first layer; both codes
    d_width: int = 64  # of the discriminator's; both codes
    levels: int = 8  # halvings, down to one cell at 256; both codes
    mask_channel: bool = True  # second; the first has none
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)  # colour in the hole, RGB in [-1, 1]; second
    mask_pool: Literal["vote", "max"] = "vote"  # which cells are holes; first

    losses: Literal["paper", "v2"] = "paper"
    hole_size: int = 0  # v2: side of all holes in pixels, 120 in the codes; 0 for holes of any shape
    l1_weight: float = 100.0  # both codes; the paper's 1, all weights times 100
    guidance_weight: float = 1.0  # both codes; the paper's 0.01
    adversarial_weight: float = 0.2  # both codes; the paper's 0.002
    hole_l1_weight: float = 400.0  # v2: second; not used without hole_size
    style_weight: float = 10.0  # v2: second
    content_weight: float = 1.0  # v2: second

    learning_rate: float = 2e-4  # paper and both codes
    d_learning_rate: float = 2e-4  # both codes
    beta1: float = 0.5  # paper and both codes
    beta2: float = 0.999  # both codes
    batch_size: int = 1  # paper and both codes
    steps: int = 447_000  # 30 epochs (paper) of Paris StreetView's 14,900 images

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if self.levels < 4:
            raise ValueError(f"levels must be at least 4, since the shift is at the third; got {self.levels}")
        if self.hole_size and (self.losses != "v2" or self.hole_size < 24):
            raise ValueError(
                f'hole_size must be 0, or at least 24 with losses "v2", since the discriminator sees the hole alone; '
                f"got {self.hole_size} with {self.losses!r}"
            )

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow and shallow, two steps, no VGG-16; sides are multiples of 32."""
        return cls(
            width=4,
            d_width=4,
            levels=5,
            batch_size=2,
            steps=2,
            features="random",
            style_weight=0.0,
            content_weight=0.0,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            d_width=8,
            levels=6,  # down to one cell at 64 pixels
            mask_pool="max",  # a stroke is thinner than a cell of the shift at this size
            batch_size=16,
            learning_rate=3e-3,  # the paper's 2e-4 needs far more steps than a demo has
            d_learning_rate=1e-4,  # slow: a discriminator ahead of the generator does not help in so few steps
            beta1=0.9,
            steps=600,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            steps=20_000,
        )
