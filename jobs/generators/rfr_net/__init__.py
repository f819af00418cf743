"""Recurrent Feature Reasoning for Image Inpainting (RFR-Net). Li, Wang, Zhang, Du, Tao, CVPR 2020.

"The code" is the authors' release (MIT). Networks, losses and settings are read in it, unless said otherwise below. The
paper's own tables were not readable, and no results are compared.

Built: six recurrences, in each of which two partial convolutions enlarge the known part of the feature map by six cells
and one shared network with attention fills it; the merge of the seven feature groups by their masks; the attention that
keeps its scores from one recurrence to the next (knowledge-consistent attention). There is no discriminator.
Parameters: generator 31,224,065. Phases: `train`, then `finetune` with the running statistics of all batch norms and a
lower learning rate. Without `finetune` users saw colours drift.

Reach: 10 + 12 * recurrences = 82 pixels from the hole's rim with the default kernels. Cells further away stay empty,
and the output there depends on the last layers alone. The output `unfilled` shows them. More recurrences reach further.

Needs: VGG-16 features (pool1 to pool3), unless perceptual and style weights are both 0. The features see images in
[0, 1] without ImageNet's normalisation, to which the weights belong. Images of H x W are padded by reflection to a
multiple of 16 and cropped back.

Differs from the code:
- Masks have one channel; their windows' sums are multiplied by the number of channels. The numbers are equal.
- The attention is computed for a whole batch. The sum of scores over a query's 3x3 neighbours is the score of the sum
  of the neighbours, so no map of all pairs is pooled.
- The attention's scores are passed from one recurrence to the next as a value. The code keeps them in the layer, where
  they survive a call.
- Feature groups are merged by sum(F M) / max(sum(M), 1), in place of means and an epsilon of 1e-7.
- `finetune` keeps Adam's moments; the code starts a new optimiser.
- The output is limited to [-1, 1] when holes are filled, not in training.
- Masks, crops and flips are the pipeline's. The code trains with the masks of partial convolution or with strokes, and
  flips image and mask independently.

The bottleneck before the last convolution has no ReLU between its third norm and the sum, as in He et al., "Deep
Residual Learning", 2016 (recalled of the code).

Kept from the code: attention keys are normalised and queries are not; holes may be keys; nothing stands between the two
partial convolutions of a recurrence.

`kernel_size=5` in the partial convolutions at half size is the authors' setting for small holes.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested
(read in PyTorch's documentation, not run on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAPER: str = "Recurrent Feature Reasoning for Image Inpainting (Li et al.)"
YEAR: int = 2020
NEEDS: tuple[str, ...] = ("vgg16",)
PARAMETERS: dict[str, int] = {"generator": 31_224_065}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of RFR-Net. Defaults are those of the authors' code for Places2.

    width: channels of the map at half size, a multiple of 2; maps at 1/4, 1/8 and 1/16 have 2, 4 and 8 times as many.
    recurrences: at least 2, since the first one blends no scores.
    kernel_size: of the partial convolutions at half size, odd.
    *_steps: steps of the phase of that name; 0 leaves the phase out.
    finetune_learning_rate: learning rate in the phase `finetune`.
    features: weights of VGG-16: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for less than two recurrences, an even kernel and an odd width.
    """

    width: int = 64
    recurrences: int = 6
    kernel_size: int = 7

    valid_weight: float = 1.0
    hole_weight: float = 6.0
    perceptual_weight: float = 0.05
    style_weight: float = 120.0
    tv_weight: float = 0.1
    features: str = "imagenet"
    features_seed: int = 0

    learning_rate: float = 2e-4
    finetune_learning_rate: float = 5e-5
    beta1: float = 0.9  # Adam's own
    beta2: float = 0.999
    batch_size: int = 6
    train_steps: int = 2_000_000
    finetune_steps: int = 1_000_000

    def __post_init__(self) -> None:
        if self.recurrences < 2:
            raise ValueError(f"recurrences must be at least 2, got {self.recurrences}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {self.kernel_size}")
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, since a layer has half of it; got {self.width}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: narrow, two recurrences, both phases, without VGG-16."""
        return cls(
            width=4,
            recurrences=2,
            perceptual_weight=0.0,
            style_weight=0.0,
            features="random",
            batch_size=2,
            train_steps=1,
            finetune_steps=1,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            recurrences=2,  # reaches 34 pixels: every cell of a hole at this size
            features="random",
            perceptual_weight=0.0,  # no VGG-16 in a demo: random features only cost time
            style_weight=0.0,
            learning_rate=1e-3,
            finetune_learning_rate=2e-4,
            batch_size=16,
            train_steps=600,
            finetune_steps=200,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            recurrences=4,  # reaches every cell of a hole at 128 pixels
            train_steps=18_000,
            finetune_steps=2_000,
        )
