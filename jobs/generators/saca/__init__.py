"""SACA: group a feature map into semantic regions and give every place of the hole the context of its regions.

Huang, Qin, Liu, Weng, Zhu, "Semantic-Aware Context Aggregation for Image Inpainting", ICASSP 2021. Title and authors
are recalled (unverified): the available text says no more than "SACA, ICASSP 2021, a module applied to the high-level
and the low-level feature maps of the model". No text of the paper, no code and no numbers of it were found.

So this is a design after the paper's idea, not a transcription. The idea (recalled): attention among pixels borrows
texture without understanding. Instead, distant context is aggregated by meaning, over regions that are learned from the
feature map itself; this suppresses misleading features and is cheap enough for large maps.

What is built: a one-stage generator of EdgeConnect's shape with two skips, one SACA module in the middle of its
dilated residual blocks and one at the first decoder map (128 x 128 at 256), and a 70x70 patch discriminator with
spectral norm. One phase, discriminator first, then generator.
Parameters: generator 10,824,325 (10,667,843 without both modules), discriminator 2,764,737.
Sides that are no multiples of 4 are padded and cropped back; the shortest side is 5 pixels (24 in training, for the
discriminator).

All of this is inferred, with the likely alternatives of the paper:
- The module: learned soft regions, 32 at both places (or: hard clusters, regions of a segmentation branch); regions
  described by known cells only, since features of the hole are guesses; self-attention among regions (or: a graph
  convolution); a residual with a gate that starts at 0 (or: concatenation and a 3x3 convolution, 1.18 million
  parameters more). A cell with any hole pixel counts as hole.
- Its places: the bottleneck and the decoder's half-size map (or: the encoder's, or every level of the decoder).
- One generator and one discriminator (or: coarse to fine, local and global). Convolutions with bias, zero padding,
  affine instance norm.
- Losses: L1, perceptual, style and adversarial with EdgeConnect's weights (those were read in its configuration file),
  which belong to images in [0, 1]. L1, perceptual and adversarial see the raw output, not pasted into the image; style
  sees the hole. VGG-19 sees images normalised with ImageNet's mean and deviation. The adversarial loss is the hinge,
  while EdgeConnect's default is the non-saturating one. The discriminator's loss is halved, as EdgeConnect's, which
  makes no difference to Adam.
- Optimizer, rates and batch size are EdgeConnect's, too. So are the initial weights of all convolutions, N(0, 0.02);
  the three linear maps among regions have PyTorch's initial weights.
- "Semantic" needs no labels. Two options, both off: `supervision_weight` trains the assignment with labels (then
  `regions` is the number of classes; the sum over the modules), `entropy_weight` keeps regions from collapsing.

Differs from the design's own formulas: the lower bound of L1's denominator, 0.001, is a maximum, not a sum.

An assignment that puts all pixels into one region makes a module dead without any error: its context is constant, and
the instance norm turns it into 0. `entropy_weight` makes the loop log minus the entropy of the mean assignment, times
the weight. If the entropy stays below half of log(regions) per module, the term is needed, and 0.01 is a start.
The biases of convolutions directly before an instance norm get no gradient but rounding errors, by construction. The
inner weights of a SACA module get no gradient in the first step, before its gate has moved.

Needs: VGG-19 features, unless perceptual and style weights are both 0; the column `semantics` if supervised.
On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested;
with supervision also the bilinear resize's gradient (read in PyTorch's documentation, not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Semantic-Aware Context Aggregation for Image Inpainting (Huang et al.)"
YEAR: int = 2021
NEEDS: tuple[str, ...] = ("vgg19",)
PARAMETERS: dict[str, int] = {"generator": 10_824_325, "generator_d": 2_764_737}


@dataclass(frozen=True, kw_only=True)
class Config:
    """SACA's hyperparameters. Defaults: EdgeConnect's, or ours where it has none; the paper's are unknown.

    regions: K of both modules; with supervision the number of classes, and labels are below it.
    saca_at: places of the modules; "dec128" is the decoder's map of half the image's size, 128 at 256.
    features: weights of VGG-19: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for less than one region, and for supervision_weight or entropy_weight without modules.
    """

    width: int = 64  # of the generator's first layer; EdgeConnect
    d_width: int = 64  # of the discriminator's first layer; EdgeConnect
    residual_blocks: int = 8  # half of them before the bottleneck's module; EdgeConnect
    regions: int = 32  # inferred: more than the objects of a scene; attention among so few costs almost nothing
    saca_at: Literal["both", "bottleneck", "dec128", "neither"] = "both"  # high- and low-level maps; places inferred

    l1_weight: float = 1.0  # EdgeConnect
    perceptual_weight: float = 0.1  # EdgeConnect
    style_weight: float = 250.0  # EdgeConnect
    adversarial_weight: float = 0.1  # EdgeConnect
    supervision_weight: float = 0.0  # off; 0.1 if labels are to name the regions (inferred)
    entropy_weight: float = 0.0  # off; 0.01 against collapse (inferred)

    learning_rate: float = 1e-4  # EdgeConnect
    d_learning_rate: float = 1e-5  # EdgeConnect
    beta1: float = 0.0  # EdgeConnect
    beta2: float = 0.9  # EdgeConnect
    batch_size: int = 8  # EdgeConnect
    steps: int = 300_000  # inferred, for a first result; EdgeConnect stops at 2,000,000

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if self.regions < 1:
            raise ValueError(f"regions must be at least 1, got {self.regions}")
        if self.saca_at == "neither" and (self.supervision_weight or self.entropy_weight):
            raise ValueError('saca_at "neither" has no regions: supervision_weight and entropy_weight must be 0')

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, two steps, no VGG-19; sides are multiples of 4."""
        return cls(
            width=4,
            d_width=4,
            residual_blocks=2,
            regions=3,
            batch_size=2,
            steps=2,
            perceptual_weight=0.0,
            style_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            d_width=8,
            residual_blocks=4,
            regions=16,
            batch_size=8,
            learning_rate=2e-3,  # the paper's is unknown; EdgeConnect's 1e-4 needs far more steps than a demo has
            d_learning_rate=1e-4,
            beta1=0.5,  # higher than EdgeConnect's 0, for few steps
            adversarial_weight=0.01,
            steps=600,
            features="random",
            perceptual_weight=0.0,  # no VGG-19 in a demo: random features only cost time
            style_weight=0.0,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            residual_blocks=8,
            regions=32,
            steps=20_000,
        )
