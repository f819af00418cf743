"""SGE-Net: predict a segmentation at every scale, estimate its confidence, and guide the inpainting with it.

Liao, Xiao, Wang, Lin, Satoh, "Guidance and Evaluation: Semantic-Aware Image Inpainting for Mixed Scenes", ECCV 2020,
arXiv 2003.06877.

There is no code by the authors, and the body of the paper could not be read, only its abstract and the beginning of its
introduction. This is a complete network in the spirit of the paper, not a copy of it: weights of the authors, if there
were any, would not fit. Only facts are taken from code for other papers; they are named below.

From the abstract and from notes of others on the paper's figures: segmentation and image are predicted together, coarse
to fine, and each refines the other; every scale's segmentation guides the inference of the next finer one (SGIM); a
per-pixel maximum of the class probabilities, ranked against a percentile, finds unreliable cells (SCEM), which are then
corrected. This is repeated at every scale. SPADE is the block that its authors published.

What is built: encoder with four halvings and dilated residual blocks; two heads at each of five scales; four SGIMs, in
which SPADE layers guide all of the map and a second, gated step corrects the unreliable cells; a 70x70 patch
discriminator. Trained end to end in one phase. Parameters: generator 54,602,871, generator_d 2,764,737 with 8 classes;
generator 54,778,035 with 20.

Inferred (others might read the paper differently):
- All layers, widths, weights of losses, learning rates and steps. Initial weights are PyTorch's own, the
  discriminator's N(0, 0.02).
- Input: the image, zero in the hole, and the mask.
- Only hole cells are ranked, per sample: the rest has true content, and is least certain at borders of classes.
- Shares of 1/2, 1/2, 1/4 and 1/4 of the hole from the coarsest scale to the finest.
- The correction is multiplied by the mask of unreliable cells, so that reliable ones keep their values bit for bit.
- SPADE sees soft probabilities, enlarged bilinearly: a hard choice of classes would cut the gradient that couples both
  tasks. The choice of unreliable cells passes none.
- Adversarial loss: hinge, on the composite, at the finest scale only.
- The discriminator steps first, and real and fake pass through it as one batch.
Recalled, not verified: predictions of all scales are compared with the truth at full size, to which they are enlarged.

Labels are a target in training and never an input. The segmentation loss ignores pixels labelled 255: an image without
any label still trains the rest, as Cityscapes' 1,525 test images do (the authors use a pretrained segmenter there:
recalled, not verified). Outdoor Scenes has 8 classes, the default; Cityscapes 20, its 19 training classes and void.
Labels not below num_classes are refused.
The paper's masks are not used (recalled: half of the batch has centred 128x128 squares, half irregular holes; the mix
is inferred). Masks, crops and flips are the pipeline's.
No figure of the paper's tables could be read, so there is none to compare with.

Needs: the column "semantics" in training. Any H x W above 16 x 16 in inpainting: image and hole are mirrored to
multiples of 16, and the result is cropped back; training needs multiples of 16. At inference neither the coarse image
heads nor the finest segmentation head run. Cost (calculated): 142 G multiplications forward for 256x256 and 20 classes,
48 G of them in the last SGIM.

On a GPU, these operations sum in varying order unless deterministic algorithms are requested: convolutions, and the
gradient of bilinear enlargement, for which PyTorch then has a slower form (read in its documentation, not run on a
GPU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAPER: str = "Guidance and Evaluation: Semantic-Aware Image Inpainting for Mixed Scenes (Liao et al.)"
YEAR: int = 2020
NEEDS: tuple[str, ...] = ("semantics",)
PARAMETERS: dict[str, int] = {"generator": 54_602_871, "generator_d": 2_764_737}


@dataclass(frozen=True, kw_only=True)
class Config:
    """SGE-Net's settings. The paper's own values could not be read: every default is inferred.

    Raises ValueError for num_classes outside [1, 255] and for a share outside [0, 1].
    """

    num_classes: int = 8  # Outdoor Scenes: background, sky, water, grass, mountain, building, plant, animal
    width: int = 64  # channels at full size; inferred
    spade_hidden: int = 128  # channels inside SPADE; SPADE's code
    # Of the hole's cells, the share refined on the way from scale 1, 2, 3 and 4; inferred: coarse predictions are the
    # least reliable.
    refined_shares: tuple[float, float, float, float] = (0.25, 0.25, 0.5, 0.5)
    d_width: int = 64  # the usual 70x70 PatchGAN

    # Ratios of the closest published code on semantic inpainting, 10 : 10 : 1; the paper has one weight per term.
    l1_weight: float = 1.0
    segmentation_weight: float = 1.0
    adversarial_weight: float = 0.1

    learning_rate: float = 2e-4  # inferred: common values, here and below
    d_learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 8
    steps: int = 300_000
    halving_steps: tuple[int, int] = (150_000, 225_000)  # both learning rates are halved here

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= 255:
            raise ValueError(f"num_classes must lie in [1, 255], since label 255 is none; got {self.num_classes}")
        if not all(0 <= share <= 1 for share in self.refined_shares):
            raise ValueError(f"refined_shares must lie in [0, 1], got {self.refined_shares}")

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, four classes, two steps; sides are multiples of 16."""
        return cls(num_classes=4, width=4, spade_hidden=4, d_width=4, batch_size=2, steps=2)

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            spade_hidden=16,
            d_width=4,
            batch_size=4,  # more steps help more here than less noise
            learning_rate=2e-3,  # 2e-4 needs far more steps than a demo has
            d_learning_rate=2e-4,
            beta1=0.9,
            beta2=0.99,
            steps=480,
            halving_steps=(320, 420),
            segmentation_weight=0.02,  # with more, the classes would dominate the shared layers in so few steps
            adversarial_weight=0.001,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            spade_hidden=64,
            d_width=32,
            batch_size=8,
            steps=20_000,
            halving_steps=(13_000, 17_500),
        )
