"""High-Resolution Image Inpainting using Multi-Scale Neural Patch Synthesis. Yang, Lu, Lin, Shechtman, Wang, Li, 2017.

CVPR 2017, arXiv 1611.09969; other papers' tables call it MNPS. "The code" is the authors' release, without training;
they train the content network with the code of Context Encoders.

Built: the content network, which is a Context Encoder with its dense bottleneck of 4000 units; its training; and the
texture stage, which has no training. This stage changes an already filled hole by L-BFGS, from coarse to fine, until
the VGG-19 features of the hole are close to the content network's and consist of patches of the known part.
  variant "random": arbitrary holes; the content network predicts the whole image. It is the default here, since it
    takes any mask. This variant is our extension, and so are general masks in the texture stage.
  variant "centre": the paper's. The hole is the square that leaves S/4 + overlap pixels of the content network's input
    on each side. Training uses that hole in place of every batch's mask; inpainting refuses a mask that reaches beyond
    it.
Parameters: generator 71,190,208 and discriminator 2,831,232; centre variant at 128: 71,124,544 and 2,765,568.
Images of any size are filled: they are resized to the content network's square, its output is resized back, and the
texture stage works at the image's own size and at 1/2 and 1/4 of it. Scales with a side below 24 pixels, where the
deepest features have no whole patch, are left out. `texture_iterations` or `texture_scales` 0 switches the stage off.
At the defaults a 512 x 512 image takes minutes on a CPU: about 30 * 10^12 multiplications (estimated, not measured).

Where paper and code differ, this follows the code, which is the only runnable reference:
- Content term: it compares relu4_2 features of the whole image, while the paper (unverified) compares pixels in the
  hole. `content_region="hole"` restricts it to the hole's cells.
- Patches are of relu4_1 only, as in the faster release. The paper (unverified) and the first release also match
  relu3_1: `texture_layers="relu3_1+relu4_1"`. Patches are matched once per scale; `rematch_every=1` is the first
  release's way.
- The weights 20, 1e-4 and 1e-4 multiply a mean, a sum and a sum, so their balance depends on the image's size. The
  paper prints 5e-6 twice, relative to 1 (unverified).
- The content network is Context Encoder's. The paper has ELU in place of ReLU and a plain fully-connected bottleneck
  (unverified). The overlap is 4 pixels, as in the code's commands.
Differs from both:
- The stage changes the hole and `texture_margin` pixels around it, and keeps the rest fixed. The code changes the whole
  image and blends afterwards, as `texture_region="image"` does here. Queries are the patches with a cell that may
  change, and the MRF term counts the cells that they cover.
- Sources: the code overwrites a fixed square around the hole with copies of the neighbouring content. Here no source
  patch has a cell within `source_margin` pixels (the code's 12 of 512) of a hole of any shape. The receptive field of a
  deep cell may still reach into the hole, but only as the content network filled it, never into the hidden pixels.
  `source_exclusion="receptive_field"` forbids this, too, but leaves no source at all in a 128 x 128 image with the
  centre hole, since relu4_1 sees 30 pixels on each side. Without a source, such as in an image that is all hole, there
  is no MRF term.
- Turned and zoomed sources are not cropped to their valid box: pixels beyond the border are mirrored, and no source may
  contain them.
- L-BFGS gets the true energy (the code reports 0 to it, which disables nothing here). Without line search a run may
  diverge, so a scale that ends with a higher energy than it started with, or with one that is not finite, is undone.
- Weights of VGG-19 are torchvision's by default, with ImageNet's mean and deviation; the code's are Caffe's, to which
  the weights of the terms belong. Torchvision's features are smaller, and `feature_scale` compensates for this; 100 is
  our estimate from known content losses in both (not measured). With a file of Caffe's weights use
  preprocessing="caffe" and feature_scale=1.
- Pyramids are bilinear with antialiasing. There is no feathering; blending is the pipeline's composite.
- Content network: convolutions have no bias (the code's is set to zero before every step); the generator's adversarial
  term uses the discriminator after its step. It runs in eval mode; the authors once advised a batch of 32 for its
  statistics. Masks and crops are the pipeline's; every sample has a mask of its own. A cell of its input with any hole
  pixel is hole.
- In the centre variant a mask may be smaller than the square. The content network fills the whole square, as in its
  training; the texture stage works on the mask's own hole.

Needs: VGG-19 features for inpainting, none for training; nothing but image and mask. The content network's size is
fixed at construction: content_size = 4 * 2^n, at least 64. Training resizes images and masks of any other size to it,
as filling does.
On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested, and
L-BFGS lets differences grow; all other operations here are deterministic in that mode (read in PyTorch's documentation,
not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "High-Resolution Image Inpainting using Multi-Scale Neural Patch Synthesis (Yang et al.)"
YEAR: int = 2017
NEEDS: tuple[str, ...] = ("vgg19",)
USES: tuple[str, ...] = ("context_encoder",)
"""Papers whose networks or losses this one imports."""
PARAMETERS: dict[str, int] = {"generator": 71_190_208, "generator_d": 2_831_232}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of Neural Patch Synthesis. Defaults are those of the authors' code; for training, Context Encoder's.

    content_size: side of the content network's input, in pixels; the texture stage has the image's own size.
    overlap: pixels between the border of the hole and of the prediction; centre variant only.
    overlap_weight: factor of the squared error in the overlap; centre variant only.
    texture_iterations: iterations of L-BFGS at each scale; 0 switches the texture stage off.
    texture_scales: number of scales, each half the size of the next; 0 switches the texture stage off.
    texture_margin: width of the known border around the hole that may change, in pixels at the image's own size; at
        coarser scales it shrinks in proportion.
    source_margin: distance of sources from the hole, in pixels at the image's own size; at coarser scales it shrinks in
        proportion.
    features: weights of VGG-19: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for a size that the content network cannot have, and for numbers out of range.
    """

    variant: Literal["random", "centre"] = "random"  # the paper's is "centre"; "random" takes any mask
    content_size: int = 128  # paper and code
    width: int = 64  # channels of the first stage, generator and discriminator; code
    bottleneck_units: int = 4000  # code's command
    fill_red: float = 117.0  # of 255, colour of the hole; code
    fill_green: float = 104.0  # code
    fill_blue: float = 123.0  # code
    overlap: int = 4  # code
    overlap_weight: float = 10.0  # code
    reconstruction_weight: float = 0.999  # code
    adversarial_weight: float = 0.001  # code

    learning_rate: float = 2e-3  # generator; code: ten times the discriminator's
    d_learning_rate: float = 2e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.999  # PyTorch's and Torch's default
    batch_size: int = 64  # code
    steps: int = 116_500  # code: 500 epochs of Paris StreetView's 14,900 images

    texture_iterations: int = 100  # code
    texture_scales: int = 3  # paper (unverified) and code: 128, 256, 512
    texture_layers: Literal["relu4_1", "relu3_1", "relu3_1+relu4_1"] = "relu4_1"  # faster code; the paper has both
    texture_region: Literal["hole", "image"] = "hole"  # ours; code: the whole image
    texture_margin: int = 16  # the code's overlap of 4 pixels at 128 is 16 at 512
    content_region: Literal["image", "hole"] = "image"  # code; the paper's is the hole (unverified)
    rematch_every: int = 0  # evaluations between matches, 0 = once per scale; faster code. First release: 1
    source_angle: float = 7.5  # degrees to both sides, 0 = not turned; code
    source_zoom: float = 1.05  # sources are zoomed by it and its inverse, 1 = not zoomed; code
    source_exclusion: Literal["margin", "receptive_field"] = "margin"  # ours
    source_margin: int = 12  # code: a square of 280 pixels is excluded around the hole of 256
    content_weight: float = 20.0  # code
    mrf_weight: float = 1e-4  # code
    tv_weight: float = 1e-4  # code

    preprocessing: Literal["imagenet", "caffe"] = "imagenet"  # with which `features` were trained; code: caffe
    feature_scale: float = 100.0  # factor from torchvision's features to Caffe's; ours, estimated. Caffe: 1
    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        size = self.content_size
        if size < 64 or size & (size - 1):
            raise ValueError(f"content_size must be 4 * 2^n and at least 64, got {size}")
        if not 0 <= self.overlap < size // 4:
            raise ValueError(f"overlap must be at least 0 and below content_size / 4 = {size // 4}, got {self.overlap}")
        for name in ("texture_iterations", "texture_scales", "texture_margin", "rematch_every", "source_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.source_zoom <= 0:
            raise ValueError(f"source_zoom must be above 0, got {self.source_zoom}")

    @property
    def has_texture_stage(self) -> bool:
        """Return whether the texture stage follows the content network when inpainting."""
        return bool(self.texture_iterations and self.texture_scales)

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: 64 x 64, narrow, two steps; two iterations at one scale on random features."""
        return cls(
            content_size=64,
            width=8,
            bottleneck_units=32,
            batch_size=4,
            steps=2,
            texture_iterations=2,
            texture_scales=1,
            texture_margin=2,
            source_angle=0.0,
            source_zoom=1.0,
            source_margin=0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            content_size=64,
            width=16,
            bottleneck_units=256,
            batch_size=16,
            steps=900,
            texture_iterations=0,  # a demo has no VGG-19; on random features the stage only costs time, 0.2 s per image
            features="random",
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            content_size=128,
            width=32,
            bottleneck_units=2000,
            steps=20_000,
        )
