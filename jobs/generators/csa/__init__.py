"""Coherent Semantic Attention (CSA): hole features are made of known ones, each coherent with the one before.

Liu, Jiang, Xiao, Yang, "Coherent Semantic Attention for Image Inpainting", ICCV 2019, arXiv 1905.12384. "The code" is
the authors' release beside it (PyTorch). The paper's text, formulas and weights are recalled or taken from a port that
was written from them (unverified); its figures and the code were read.

What is built: the rough network (a U-Net of eight levels), the refinement network with the CSA layer in its encoder at
an eighth of the size, a 70x70 patch discriminator and one on VGG-16's third pool. One phase: both discriminators, then
both generators against the updated discriminators.
Parameters: rough 54,419,459, generator 77,692,291, generator_d 2,766,529, features_d 10,487,296.
Any H x W: inpainting mirrors image and mask up to multiples of 2^levels (256) and crops back; training needs such
sides. Smaller images need fewer levels.

Where paper and code differ, this follows:
- Consistency trains the generator, as in the paper; the code adds it as a constant. Its target is masked like the
  features; the code's is not.
- The feature discriminator trains the generator through VGG-16, as in the paper; the code cuts that gradient off.
- Likeness in the CSA layer is a cosine, as in the paper; norm="code" has the code's mixed normalisation.
- The layer's gradient is g + A^T g with A held fixed, which the code intends; there A is a tensor of integers, so all
  shares below 1 become 0. The paper does not say.
- The feature discriminator's strides are 2, 2, 2, as in the code; feature_d="figure" has the figure's 2, 1, 1.
- Weights 1, 0.01 and 0.002 of L1, consistency and GAN, as in the paper; the code's are the same times 100, which makes
  no difference to Adam.
- The refinement network ends without tanh and the rough one with it, as in the code. Inpainting returns clamped values.
- The rough network gets no gradient from the refinement network, as in the code; losses compare raw outputs, not
  composites.
- Irregular holes have a mask per sample; the code's notebook ignores loaded masks, and its masks are one per batch.

Where this follows neither, and why:
- clamp: negative likenesses count as 0, and the denominator of a_k has 1e-8 added. Users of the code report values of
  1e10 otherwise. norm="code", clamp=False is the authors' layer, up to the 1e-8.
- Consistency is a mean over the hole's cells of the global batch and over channels (inferred: independent of the hole's
  size); the paper's is a sum (recalled).
- VGG-16 sees images normalised with ImageNet's mean and deviation (inferred: its weights expect that);
  vgg_norm="none" gives it [-1, 1], as in the code. The features of the raw, unbounded output are compared, as in the
  code.
- Matching is one product per sample, and only the recurrence over hole cells is stepwise: about four small operations
  per cell. solver="sweeps" computes all cells at once and agrees up to 1e-6; "auto" takes it on GPUs (not measured on
  one).
- A map whose cells are all hole, or all known, is unchanged: there is nothing to copy.
- Means in the relativistic loss are over the global batch; the code's batch is one image, and with more it fails.
- steps: 120 epochs, as in the code's notebook, of 14,900 steps, the training images of Paris StreetView (recalled). The
  paper also trains on CelebA and Places2, for an unknown number of epochs. The authors test epoch 30.
- Both networks refuse sides that are no multiples of 2^levels; the code resizes the decoder's map to the skip's size
  instead, although the rough network's doublings already exclude such sides.

Kept from the authors, though it may surprise:
- The colour in the hole is ImageNet's mean with green and blue exchanged.
- The mask is no input of either network: it says where the rough guess is pasted and which cells are replaced.
- Three 4x4 averages and a threshold of 5/16 decide which cells are hole: a hole of 8x8 pixels and thin strokes have no
  cell, and the attention does nothing for them.
- "The one before" reaches over row breaks, and from one hole to the next.
- The rate is constant for 19 epochs, then falls by 1/101 per epoch: it is 0 throughout the last epoch.
- All convolutions have biases; before an instance norm they change nothing and get no gradient but rounding errors.
Masks, crops and flips are the pipeline's: the code resizes without keeping the aspect ratio, and calls a mask's pixel
hole only if it is still exactly 1 after bilinear resizing.

Needs: VGG-16 features, unless consistency and feature_adversarial weights are both 0. Consistency compares 512
channels, so width must be 64 with it.
On a GPU, convolutions and their gradients and the CSA layer's scatter-add may differ from run to run unless
deterministic algorithms are requested; then all have deterministic kernels (read in PyTorch's documentation, not
measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Coherent Semantic Attention for Image Inpainting (Liu et al.)"
YEAR: int = 2019
NEEDS: tuple[str, ...] = ("vgg16",)
PARAMETERS: dict[str, int] = {
    "rough": 54_419_459,
    "generator": 77_692_291,
    "generator_d": 2_766_529,
    "features_d": 10_487_296,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """CSA's settings; defaults are the paper's, or the authors' code's where the paper is silent or not at hand.

    norm: likeness in the attention layer: "cosine", the paper's, or "code", the code's mixed normalisation.
    clamp: whether negative likenesses count as 0 in the attention layer.
    solver: order of the attention layer's computation: "scan", cell by cell, or "sweeps", all cells at once; "auto"
        sweeps on a GPU and scans elsewhere.
    feature_d: strides of the feature discriminator: "code", 2, 2, 2, or "figure", 2, 1, 1.
    features: weights of VGG-16: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for fewer than 4 levels, for a consistency loss with another width than 64, and for
    steps_per_epoch below 1.
    """

    width: int = 64  # channels of the generators' first layers; code
    d_width: int = 64  # code
    levels: int = 8  # halvings in both generators; code. The attention is always at the third
    fill: tuple[float, float, float] = (-0.035294, -0.184314, -0.082353)  # colour in the hole; code
    norm: Literal["cosine", "code"] = "cosine"  # paper
    clamp: bool = True  # ours
    solver: Literal["auto", "scan", "sweeps"] = "auto"  # the same up to 1e-6
    feature_d: Literal["code", "figure"] = "code"
    vgg_norm: Literal["imagenet", "none"] = "imagenet"  # inferred; code: none

    l1_weight: float = 1.0  # paper (recalled), each generator
    consistency_weight: float = 0.01  # paper (recalled)
    adversarial_weight: float = 0.002  # paper (recalled), patch discriminator
    feature_adversarial_weight: float = 0.002  # paper (recalled), feature discriminator

    learning_rate: float = 2e-4  # code
    d_learning_rate: float = 2e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.999  # code
    batch_size: int = 1  # code
    steps: int = 1_788_000  # 120 epochs, code's notebook
    steps_per_epoch: int = 14_900  # Paris StreetView's training images (recalled), one per step
    constant_epochs: int = 19  # code's notebook; then linear decay until the last epoch

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if self.levels < 4:
            raise ValueError(f"levels must be at least 4, since the attention needs one below it; got {self.levels}")
        if self.consistency_weight and self.width != 64:
            raise ValueError(
                "the consistency loss compares 8 * width channels with VGG-16's 512, so width must be 64, "
                f"got {self.width}; or set consistency_weight to 0"
            )
        if self.steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {self.steps_per_epoch}")

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, two steps, no VGG-16, so no feature discriminator.

        Sides are multiples of 64.
        """
        return cls(
            width=4,
            d_width=4,
            levels=6,
            batch_size=2,
            steps=2,
            steps_per_epoch=1,
            constant_epochs=2,
            consistency_weight=0.0,
            feature_adversarial_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=8,
            d_width=8,
            levels=5,  # the image has 64 pixels, so the deepest map 2x2
            batch_size=16,  # the paper's 1 is too noisy for so few steps
            learning_rate=1e-3,  # the paper's 2e-4 needs far more steps than a demo has
            d_learning_rate=1e-4,
            beta1=0.9,
            adversarial_weight=5e-4,
            consistency_weight=0.0,  # no VGG-16 in a demo: random features only cost time; with it width must be 64
            feature_adversarial_weight=0.0,
            steps=420,
            steps_per_epoch=21,  # the rate falls every 21 steps once half of them are done
            constant_epochs=10,
            features="random",
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            levels=6,
            steps=20_000,
            steps_per_epoch=1_000,
        )
