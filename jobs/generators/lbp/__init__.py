"""LBP: complete the local binary patterns in the hole, then paint the image with their help and spatial attention.

Wu, Zhou, Li, "Deep Generative Model for Image Inpainting with Local Binary Pattern Learning and Spatial Attention",
IEEE Transactions on Multimedia 24, 2021 (arXiv 2009.01031). Most of its text and all of its result tables could not be
read: "the paper" below means its figures, "the code" means the authors' release, and facts from neither are marked
inferred.

What is built: the network L (`lbp`) that completes the map of patterns, the network G (`generator`) that paints the
image with that map beside it, both U-Nets of eight halvings; G's attention layer at an eighth of the size, which
borrows from known cells and from cells of the hole; and a 70x70 patch discriminator for each. Phases: `lbp` (L alone),
`image` (G, with L fixed), and `joint` (both, optional, 0 steps by default); discriminators first, then generators.
Parameters: lbp 54,404,481, generator 54,935,939, lbp_d 2,764,481, generator_d 2,766,529.
Inpainting pads to multiples of 2^levels, 256, and crops back; training needs sides that are such multiples.

Where paper and code differ:
- Attention weights are computed from each cell's own similarities, as in the paper's figure. In the code they are four
  numbers per image: `attention_weights="code"`. Both get no gradient, as in the code (for the paper: inferred).
- A cell of the hole does not match itself; in the code it does, and is always its own best match:
  `attention_self_match=True`.
- Weights of losses are the code's; the paper's are unverified.
Differs from the code:
- Known patterns are computed from known pixels alone: a pixel with a neighbour in the hole counts as hole in L's input
  and composite. The code computes the map from the whole image and then blanks the hole, so that the hole's rim reveals
  hidden pixels: `leaky_lbp=True`, for training. Inpainting never reads under the hole: in that mode it computes the
  rim's codes from the blanked image.
- Neighbours beyond the border give bit 0 on all four sides (inferred). In the code, row and column -1 wrap to the last
  ones: `lbp_border="code"`.
- The grey image is 0.299 R + 0.587 G + 0.114 B, rounded half up, in exact integers. OpenCV's fixed point is off by one
  level for 0.12 % of the colours (measured).
- L is trained. The code creates its optimizer and never steps it: that script is the second stage, says its author, and
  the first is not released. L's losses are inferred: those terms of the code that contain its output. Users report that
  it is hard to train. L2 on codes is a weak target, since 127 and 128 are neighbours and differ in all bits; kept.
- Images are RGB; theirs are BGR throughout. VGG-16 sees images normalised with ImageNet's mean and deviation; theirs
  sees BGR in [-1, 1]: `vgg_input="raw"`. The weights of perceptual and style loss are the code's and belong to that
  scale.
- Discriminators, style and perceptual loss see the whole image, which suits irregular holes, or with `crop_size` a
  square around each sample's hole, which suits rectangular ones (inferred: judging the masked patch is the code's
  stated aim). The code crops 120 pixels at one place drawn at the program's start, unrelated to the hole.
- Cosines of zero vectors are 0; the code divides 0 by 0. Missing matches (fewer than two known cells, or too few in the
  hole) get the weight 0.
- By an index error of the code the top left cell of every image borrows as well. The code's hand-written backward pass
  adds gradients without their weights and sends those of matches in the hole to the encoder. Here cells outside the
  hole borrow nothing, and the gradient is the layer's own.
- Real and fake go through a discriminator as one batch; true and masked image go through G as one batch.
- Spectral norm is PyTorch's, and starts from 15 power iterations.
- The batch is 8 (inferred; theirs is 1, for lack of memory by the author's account); the attention has its own mask per
  sample.
- A network keeps its Adam moments from phase to phase.
Kept from the code: the multi-level loss pulls features of the true and of the masked image together, both with a
gradient (`detach_target=True` fixes the true ones). L2 of both networks is a mean over all pixels, though it is 0
outside the hole, so it shrinks with the hole. The attention sees every eighth pixel of the mask per side: a thin stroke
may be lost, and its cells then count as known; `mask_pool="max"` keeps it.
Unused parts of the code (total variation, discounted L1, gradient penalty) are not built.

Needs: VGG-16 features, unless perceptual and style weights are both 0. The pattern maps are computed from the batch.
The biases of convolutions directly before an instance norm get no gradient but rounding errors, by construction.
On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested;
all other operations have deterministic forms, too (read in PyTorch's documentation, not measured). Of two equally
similar cells, the attention may take another one on another device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = (
    "Deep Generative Model for Image Inpainting with Local Binary Pattern Learning and Spatial Attention (Wu et al.)"
)
YEAR: int = 2021
NEEDS: tuple[str, ...] = ("vgg16",)
PARAMETERS: dict[str, int] = {
    "lbp": 54_404_481,
    "generator": 54_935_939,
    "lbp_d": 2_764_481,
    "generator_d": 2_766_529,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """LBP's hyperparameters. Defaults: the authors' code's, and the paper's where its figures say otherwise.

    width: channels of the first layer of both U-Nets.
    d_width: channels of the first layer of both discriminators.
    levels: halvings of the U-Nets; sides are multiples of 2^levels.
    attention_weights: "paper", weights from each cell's own similarities; "code", four weights per image.
    attention_self_match: whether a cell of the hole may match itself.
    leaky_lbp: whether training computes known patterns from the whole image, hidden pixels included.
    lbp_border: values beyond the border: "zero", bit 0 on all sides; "code", row and column -1 wrap to the last ones.
    mask_pool: a cell of the attention is hole if its top left pixel is ("nearest") or if any is ("max").
    crop_size: side in pixels of the square around the hole that discriminators, style and perceptual loss see; 0 shows
        them the whole image.
    vgg_input: input of VGG-16: "imagenet", RGB normalised with ImageNet's mean and deviation; "raw", BGR in [-1, 1].
    *_steps: global steps of the phase of that name; 0 leaves the phase out.
    features: weights of VGG-16: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for fewer than 4 levels, and for a crop too small for the discriminators.
    """

    width: int = 64  # code
    d_width: int = 64  # code
    levels: int = 8  # code
    attention_weights: Literal["paper", "code"] = "paper"  # the paper's figure
    attention_self_match: bool = False  # inferred: the figure borrows from other cells; code: True
    mask_pool: Literal["nearest", "max"] = "nearest"  # code
    leaky_lbp: bool = False  # ours; code: True
    lbp_border: Literal["zero", "code"] = "zero"  # inferred; code: "code"

    lbp_adversarial_weight: float = 0.2  # code
    lbp_l2_weight: float = 100.0  # code
    adversarial_weight: float = 0.2  # code
    l2_weight: float = 10.0  # code
    style_weight: float = 10.0  # code
    perceptual_weight: float = 1.0  # code
    multi_level_weight: float = 0.01  # of each of the feature maps; code
    detach_target: bool = False  # code
    crop_size: int = 0  # inferred, for irregular holes; 120 suits the code's rectangles at 256 pixels
    vgg_input: Literal["imagenet", "raw"] = "imagenet"  # ours; code: "raw"

    learning_rate: float = 2e-4  # code
    d_learning_rate: float = 2e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.999  # code
    batch_size: int = 8  # inferred; code: 1
    # Inferred: the code stops at epoch 999 at a constant rate, and chooses nothing.
    lbp_steps: int = 300_000
    image_steps: int = 300_000
    joint_steps: int = 0  # inferred

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if self.levels < 4:
            raise ValueError(f"levels must be at least 4, since the attention stands at the third; got {self.levels}")
        if self.crop_size and self.crop_size < 24:
            raise ValueError(f"crop_size must be 0 or at least 24, the discriminators' least, got {self.crop_size}")

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, every phase, no VGG-16; sides are multiples of 32."""
        return cls(
            width=4,
            d_width=4,
            levels=5,
            batch_size=2,
            lbp_steps=2,
            image_steps=2,
            joint_steps=1,
            style_weight=0.0,
            perceptual_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=12,
            d_width=8,
            levels=6,  # down to 1x1 at 64 pixels, as 8 at the paper's 256
            mask_pool="max",  # a stroke is thinner than a cell of the attention at this size
            batch_size=16,
            learning_rate=2e-3,  # the paper's 2e-4 needs far more steps than a demo has
            d_learning_rate=1e-4,  # keeps the discriminators from overrunning their narrow generators
            beta1=0.9,
            lbp_steps=80,  # leaves most of the time to the image, which is evaluated
            image_steps=500,
            lbp_adversarial_weight=0.01,
            adversarial_weight=0.01,
            features="random",
            perceptual_weight=0.0,  # no VGG-16 in a demo: random features only cost time
            style_weight=0.0,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            lbp_steps=3_000,
            image_steps=17_000,
        )
