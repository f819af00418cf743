"""PartialConv: convolutions that read valid pixels only and shrink the hole layer by layer.

Liu, Reda, Shih, Wang, Tao, Catanzaro, "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018.
The authors released the layer, a loss module and answers to users ("the authors' code" here), but neither the network
nor its training nor weights. Facts known from a port alone name that port: "the PyTorch port" is naoto0804's, "the
Keras port" MathiasGruber's, "MMagic" OpenMMLab's. Equation and section numbers, the region and divisor of the TV loss,
and the paper's image size are recalled, not re-read (unverified).

What is built: the U-Net of the supplement's table (as the Keras port confirms it), `levels` partial convolutions down
and as many up, without a discriminator, and its two phases: `train`, and `finetune` at a lower rate with the encoder's
batch norms frozen (statistics and affine parameters), since zeros of the hole bias those statistics. The PyTorch port
freezes the statistics alone, MMagic both. 32,859,732 parameters at 8 levels; 25,779,796 at 7, for images of 256.

Choices where sources differ:
- Sums are scaled by sum(1) / sum(M) with sum(1) = C k k, as in the paper's Eq. 1 and the authors' layer; the authors'
  answers also have 1 / sum(M), and the ports leave out C or all of it. Batch norm hides the constant in all layers but
  the first and the last.
- Valid and hole terms are divided by the number of all elements (paper), not by the mask's area (MMagic).
- Valid, hole and TV terms are counted in ImageNet-normalised values, about 4.4 times those of [0, 1], as in the
  authors' loss module; the paper does not say. `pixel_scale` has the alternatives.
- TV counts pairs with both ends in the hole dilated by a pixel (the paper, unverified); the ports take the whole image,
  the hole undilated, or penalise the dilated hole's rim.
- Only the last convolution has a bias, as in the PyTorch port: before a batch norm it would do nothing. The paper's
  Eq. 1 has one everywhere.
- The output is linear; the Keras port adds a 1x1 convolution and a sigmoid. Decoded features come before skipped ones.
- Weights start Kaiming-normal (fan in) and biases at 0, as in the PyTorch port (inferred for the paper).
- The paper counts days of training, not steps; `train_steps` and `finetune_steps` are MMagic's, for 256 pixels.

Where this follows none of them, and why:
- A mask is one channel per group of channels that share it, two groups in the decoder, instead of one per feature:
  the same masks to the bit, and half the multiplications of a convolution with all masks.
- Where sum(M) is 0 it is replaced by 1, instead of adding 1e-8 to it: sum(M) is a whole number, so the result is exact.
- Pixels under the hole are replaced by 0, not multiplied by 0, so that not even NaN passes.
- In inpainting, sides that are no multiples of 2^levels are filled up with hole and cropped back, while other papers
  here mirror image and mask. Every layer counts pixels beyond the border as hole, so this treats both borders alike.
  Filled-up and mirrored holes were equally good (hole L1 within 1 % at five sizes of the demo).
- Outputs of `inpaint` are clamped to [-1, 1]; the losses see them unclamped.
- Batch norm's statistics are those of the global batch, over all workers; the authors trained on one GPU.
- A network keeps its Adam moments from phase to phase (not known for the authors).
- The three feature losses share one pass of VGG-16 over outputs and composites. In mixed precision, Gram matrices are
  computed in float32; the authors scale inside the product instead.
- The style loss has its full weight from the first step. A port reports instability there and warms it up from 1.
- Masks, crops and flips are the pipeline's; the authors dilate, move and rotate occlusion masks of videos.

A few pixels far from all known ones can remain hole to the end: the output is 0 there, mid-grey, and `unfilled` marks
them. An image without a known pixel consists of such pixels alone. A batch of one image needs a smallest map of 2x2 or
more to train: batch norm has no variance of one value.

Needs: VGG-16 features (pool1 to pool3), unless perceptual and both style weights are 0.
On a GPU, no operation here is on PyTorch's list of those without a deterministic form: the gradients of nearest
upsampling and of 2x2 pools with stride 2 add in one order (read, not run on a GPU). Convolutions vary from run to run
unless deterministic algorithms are requested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Image Inpainting for Irregular Holes Using Partial Convolutions (Liu et al.)"
YEAR: int = 2018
NEEDS: tuple[str, ...] = ("vgg16",)
PARAMETERS: dict[str, int] = {"generator": 32_859_732}


@dataclass(frozen=True, kw_only=True)
class Config:
    """PartialConv's hyperparameters. Defaults: the paper's, or those of the named source where the paper is silent.

    width: channels of the first layer.
    levels: number of halvings; sides are multiples of 2^levels. At log2(side) - 1 levels the smallest map is 2x2: 8 for
        images of 512 pixels, 7 for 256.
    *_steps: global steps of the phase of that name; 0 leaves the phase out.
    finetune_learning_rate: learning rate in the phase `finetune`.
    pixel_scale: range of the images in the valid, hole and tv losses: "imagenet", normalised with ImageNet's mean and
        deviation; "unit", [0, 1]; "signed", [-1, 1].
    features: weights of VGG-16: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for less than one level.
    """

    width: int = 64  # supplement's table
    levels: int = 8  # the same; at 512 pixels

    train_steps: int = 800_000  # MMagic's; the paper counts days: ten, for ImageNet and Places2
    finetune_steps: int = 500_000  # the same; the paper: one day

    batch_size: int = 6  # paper
    learning_rate: float = 2e-4  # paper
    finetune_learning_rate: float = 5e-5  # paper
    beta1: float = 0.9  # Adam's own
    beta2: float = 0.999  # Adam's own

    valid_weight: float = 1.0  # Eq. of L_total
    hole_weight: float = 6.0  # the same
    perceptual_weight: float = 0.05  # the same
    style_out_weight: float = 120.0  # the same
    style_comp_weight: float = 120.0  # the same
    tv_weight: float = 0.1  # the same
    pixel_scale: Literal["imagenet", "unit", "signed"] = "imagenet"  # the authors' loss code

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: both phases, no VGG-16, a fraction of a second per step on a CPU."""
        return cls(
            width=4,
            levels=5,
            train_steps=1,
            finetune_steps=1,
            batch_size=2,
            perceptual_weight=0.0,
            style_out_weight=0.0,
            style_comp_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            levels=5,  # log2(64) - 1, as the paper's 8 at 512 pixels
            batch_size=16,
            learning_rate=2e-3,  # the paper's 2e-4 needs far more steps than a demo has
            finetune_learning_rate=5e-4,  # a quarter, as the paper's
            train_steps=600,
            finetune_steps=100,
            features="random",
            perceptual_weight=0.0,  # no VGG-16 in a demo: random features only cost time
            style_out_weight=0.0,
            style_comp_weight=0.0,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            levels=6,  # log2(128) - 1
            train_steps=18_000,
            finetune_steps=2_000,
        )
