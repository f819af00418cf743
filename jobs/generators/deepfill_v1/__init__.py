"""Generative Image Inpainting with Contextual Attention (DeepFill v1). Yu, Lin, Yang, Shen, Lu, Huang, CVPR 2018.

arXiv 1801.07892. "The code" is the authors' release, branch v1.0.0.

Built: the coarse network; the refinement network with contextual attention; a global and a local Wasserstein critic
with gradient penalty on the hole; spatially discounted l1. Parameters: generator 3,601,542 (coarse 1,448,227,
refinement 2,153,315), global critic 2,733,441, local critic 4,339,329. `attention=False` is the paper's baseline in
Table 1: the refinement network has the layers of the coarse one (generator 2,896,454, with which the paper's 2.9
million, unverified, agree).

A step of the phase `adversarial` is one update of the critics; every `num_critic`-th step also updates the generator.
`steps` counts critic updates: 5,000,000 are the code's 1,000,000 of the generator. `pretrain_steps` come before, with
the coarse network's losses alone. They are an option of the code, off by default there and here.

Needs: nothing but image and mask. Training needs images of image_size, which the critics' linear layers fix; inpainting
takes any H x W, pads image and mask by reflection to a multiple of 8 and crops back.

Holes have any shape. The paper's hole is one box of 128 pixels, shrunk at random; l1 is computed on that box and the
local critic sees it. Here every sample has a box of its own, the window of local_size pixels that is centred on the
bounding box of the hole and shifted into the image. For masks that are not one box within it:
- l1_region="box" is the code's: the discount falls with the distance to the window's border, no matter which pixels
  inside are known. The hole gets no l1 beyond the window.
- l1_region="hole" is the paper's definition, literally: gamma^(distance to the nearest known pixel), on all hole pixels
  and no others. The distance is counted in steps to the four neighbours (ours). In a hole that is a box inside the
  image this is the code's map without its asymmetry. The sum is divided by the number of elements of the window, so
  that its weight keeps its meaning. It is recommended for free-form masks.
- local_critic=False leaves the local critic out.

Differs from the paper, as the code does:
- gamma is 0.9, not 0.99: the box's centre then has the weight 0.001 and not 0.5.
- The hole is 0 (grey); the paper fills it with white.
- Attention: only the background's patches are normalised, scores are fused before the softmax, and masked patches get
  score 0 before it and weight 0 after it (`jobs/layers/attention.py`).
- l1 on the box is computed on raw outputs, also where the hole is smaller than the box.
Differs from the code:
- Every sample has a mask and a box of its own; in the code a batch shares one. Masks, crops and flips are the
  pipeline's (MaskConfig's "rectangle" is this paper's mask, a random crop of 256 pixels its image; it has no flips).
- The generator's update uses the batch of the critics' fifth update; the code reads a new one.
- There are two (or three) Adam optimizers. The code's single one counts all updates in its bias correction.
- The gradient's norm is sqrt(sum + 1e-12), since a root has no finite slope at 0.
- Strided convolutions pad symmetrically; `tf_same=True` pads (0, 1) and (1, 2) as TensorFlow does for even sizes, which
  converted weights need. Nearest down-sampling in the attention takes every second pixel in either case; the code's
  aligns corners, which differs by a pixel in half of the map.
- mask_pool: with "nearest", the code's, the attention misses strokes thinner than 8 pixels and copies hole features as
  if they were known; "max" keeps them and is recommended for free-form masks.
- Colours are RGB; theirs are BGR. The attention's offsets are not drawn.

Kept from the code: the discount map is longer by one pixel towards the lower right; the outermost ring of the attended
map is halved; clamped outputs get no gradient beyond [-1, 1].

The gradient penalty is computed in float32 also under autocast (ours). The paper's text was not at hand: statements
about it come from its equations as summarised elsewhere and from the authors' answers to users.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested. The
same is true of the gradient of the window's gather, which is a scatter-add (read in PyTorch's documentation, not
measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Generative Image Inpainting with Contextual Attention (Yu et al.)"
YEAR: int = 2018
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 3_601_542, "global_d": 2_733_441, "local_d": 4_339_329}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of DeepFill v1. Defaults are those of the authors' code.

    image_size: side of training images in pixels, a multiple of 8; the critics fix it.
    local_size: side of the box that l1 and the local critic use, in pixels.
    steps: updates of the critics.

    Raises ValueError for sizes and widths that the networks cannot have, a discount outside (0, 1], and a num_critic
    below 1.
    """

    image_size: int = 256  # paper and code
    local_size: int = 128  # paper and code
    width: int = 32  # channels of the first layer; code. Even
    d_width: int = 64  # channels of the critics' first layer; code
    local_critic: bool = True  # whether there is a local critic; paper and code
    attention: bool = True  # whether the refinement network has contextual attention; paper and code
    mask_pool: Literal["nearest", "max"] = "nearest"  # how the attention shrinks the mask; code
    tf_same: bool = False  # whether strided convolutions pad as TensorFlow's do, for converted weights

    l1_region: Literal["box", "hole"] = "box"  # code
    discount: float = 0.9  # gamma; code. Paper: 0.99
    l1_weight: float = 1.2  # code
    ae_weight: float = 1.2  # l1 of known pixels; code
    coarse_weight: float = 1.2  # of the coarse output within both; code
    adversarial_weight: float = 0.001  # code
    gradient_penalty_weight: float = 10.0  # code

    learning_rate: float = 1e-4  # code
    d_learning_rate: float = 1e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.9  # code
    batch_size: int = 16  # code
    num_critic: int = 5  # critics' updates per update of the generator; code
    pretrain_steps: int = 0  # with the coarse network alone; an option of the code
    steps: int = 5_000_000  # num_critic times the code's 1,000,000 updates of the generator

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, since a layer has half of it; got {self.width}")
        if self.image_size < 8 or self.image_size % 8:
            raise ValueError(f"image_size must be a positive multiple of 8, got {self.image_size}")
        if not 1 <= self.local_size <= self.image_size:
            raise ValueError(f"local_size must lie in 1 to image_size = {self.image_size}, got {self.local_size}")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount must lie in (0, 1], got {self.discount}")
        if self.num_critic < 1:
            raise ValueError(f"num_critic must be at least 1, got {self.num_critic}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: 64 x 64 pixels, narrow, both phases, with an update of the generator."""
        return cls(
            image_size=64,
            local_size=32,
            width=4,
            d_width=4,
            batch_size=2,
            num_critic=2,
            pretrain_steps=1,
            steps=2,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            image_size=64,
            local_size=32,  # half the side, as the paper's
            width=8,
            d_width=8,
            mask_pool="max",  # a stroke is thinner than a cell of the attention at this size
            l1_region="hole",  # the masks are not boxes
            discount=0.99,  # the paper's; the code's 0.9 leaves little weight in the middle of a hole
            batch_size=8,
            learning_rate=1e-3,  # the paper's 1e-4 needs far more steps than a demo has
            d_learning_rate=1e-3,
            beta1=0.9,
            num_critic=1,  # the paper's 5 would leave the generator too few updates
            pretrain_steps=250,
            steps=400,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            image_size=128,
            local_size=64,
            width=16,
            d_width=32,
            pretrain_steps=8_000,
            steps=12_000,
        )
