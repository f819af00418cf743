"""Coherence priors: textures of a hole come from known places of the same class, and class borders tie to the image.

Liao, Xiao, Wang, Lin, Satoh, "Image Inpainting Guided by Coherence Priors of Semantics and Textures", CVPR 2021, pp.
6539-6548, arXiv 2012.08054. By the authors of SGE-Net, whose successor it is.

There is no code by the authors, and the body of the paper could not be read. This is a complete network in the spirit
of the paper, not a copy of it: weights of the authors, if there were any, would not fit. Only facts are taken from code
for other papers; they are named below.

From a public review and notes of others on the paper's figures and losses: two heads per scale on shared features; SWAP
between the scales, contextual attention in which a missing patch may match only patches of its own class, summed over
classes, joined with the background and passed through dilated convolutions; a non-local patch coherence loss, by which
a generated patch should resemble any known patch of its class; a structure coherence loss with two conditional
discriminators on image and segmentation. The factor 10 in the softmax is that of contextual attention's code.

What is built: encoder with four halvings and dilated residual blocks (as in our SGE-Net); heads at five scales; SWAP at
four; discriminators texture_d (D_t) and structure_d (D_s), 70x70 patches of image and one-hot segmentation. Two phases:
`supervised`, reconstruction and segmentation alone, and `coherence`, with both coherence losses. Parameters: generator
61,911,735, discriminators 2,772,929 each with 8 classes; 61,921,011 and 2,785,217 with 20.

Inferred (others might read the paper differently):
- All layers, widths, weights of losses, learning rates, steps, and the step at which the coherence losses begin.
  Initial weights are PyTorch's own, the discriminators' N(0, 0.02).
- Input: the image, zero in the hole, and the mask.
- Classes in the attention are those predicted, for known cells as well: inference has no labels, and training should
  see the same mistakes. A class without a known cell looks at all known cells.
- Single cells are copied. Overlapping patches would mix classes at their borders.
- At scale 1 matching is done on every second cell and 2 x 2 cells are copied at once: all pairs of 128 x 128 cells
  would take 1 GB per sample.
- Patch coherence compares 3x3 patches of VGG-19's relu3_1 by cosine with the best match, not a soft one, and averages
  over the hole cells of the global batch that have a match; labels are the true ones, sampled to the nearest pixel.
- Structure coherence shows discriminators a straight-through one-hot of the finest prediction, since soft probabilities
  are easy to tell from one-hot truth; pixels without label are zero in both. D_t's gradient goes to the image alone and
  D_s's to the segmentation alone, since otherwise both heads could agree on a wrong answer. Hinge, on the composite.
- The discriminators step first, and real and fake pass through each as one batch.
Recalled, not verified: reconstruction and segmentation losses at all scales; here at full size, enlarged bilinearly.

Labels are a target in training and never an input. Pixels labelled 255 are ignored; an image without any label still
trains the rest, as Cityscapes' 1,525 test images do (the authors use a pretrained segmenter there: recalled, not
verified). Outdoor Scenes has 8 classes, the default; Cityscapes 20, its 19 training classes and void. Labels not below
num_classes are refused.
The paper's masks are not used (recalled: half of the batch has centred 128x128 squares, half irregular holes; the mix
is inferred). Masks, crops and flips are the pipeline's.
No figure of the paper's tables could be read, so there is none to compare with.

Needs: the column "semantics" in training, and VGG-19 features unless patch_weight is 0. Any H x W above 16 x 16 in
inpainting: image and hole are mirrored to multiples of 16, and the result is cropped back; training needs multiples of
16. At inference neither the coarse image heads nor the finest segmentation head run. Cost (calculated): 127 G
multiplications forward for 256x256 and 20 classes, all heads; the attention holds a few maps of 67 MB per sample in
each of its two largest layers.

On a GPU, these operations sum in varying order unless deterministic algorithms are requested: convolutions, the
gradient of bilinear enlargement, for which PyTorch then has a slower form, and the gradient of indexing in the patch
coherence (read in its documentation, not run on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAPER: str = "Image Inpainting Guided by Coherence Priors of Semantics and Textures (Liao et al.)"
YEAR: int = 2021
NEEDS: tuple[str, ...] = ("semantics", "vgg19")
PARAMETERS: dict[str, int] = {"generator": 61_911_735, "texture_d": 2_772_929, "structure_d": 2_772_929}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Coherence priors' settings. The paper's own values could not be read: every default is inferred.

    features: weights of VGG-19: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.

    Raises ValueError for num_classes outside [1, 255] and for a width that is odd or below 2.
    """

    num_classes: int = 8  # Outdoor Scenes: background, sky, water, grass, mountain, building, plant, animal
    width: int = 64  # channels at full size; inferred
    d_width: int = 64  # the usual 70x70 PatchGAN

    # Ratios of the closest published code on semantic inpainting, 10 : 10 : 1.
    l1_weight: float = 1.0
    segmentation_weight: float = 1.0
    structure_weight: float = 0.1
    patch_weight: float = 0.1  # as the adversarial terms, since the loss is in [0, 2]

    learning_rate: float = 2e-4  # inferred: common values, here and below
    d_learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 8
    # 300,000 together. Predicted labels and textures are noise at first, so the coherence losses start later.
    supervised_steps: int = 10_000
    coherence_steps: int = 290_000
    halving_steps: tuple[int, int] = (150_000, 225_000)  # all learning rates, counted from the start of training

    features: str = "imagenet"
    features_seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= 255:
            raise ValueError(f"num_classes must lie in [1, 255], since label 255 is none; got {self.num_classes}")
        if self.width < 2 or self.width % 2:
            raise ValueError(
                f"width must be even, since scale 1 has twice as many channels in four parts; got {self.width}"
            )

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, four classes, both phases, no VGG-19; sides are multiples of 16."""
        return cls(
            num_classes=4,
            width=4,
            d_width=4,
            batch_size=2,
            supervised_steps=1,
            coherence_steps=1,
            patch_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            d_width=4,
            batch_size=4,  # more steps help more here than less noise
            learning_rate=2e-3,  # 2e-4 needs far more steps than a demo has
            d_learning_rate=2e-4,
            beta1=0.9,
            beta2=0.99,
            supervised_steps=440,
            coherence_steps=40,
            halving_steps=(320, 420),
            segmentation_weight=0.02,  # with more, the classes would dominate the shared layers in so few steps
            structure_weight=0.001,
            features="random",
            patch_weight=0.0,  # no VGG-19 in a demo: random features only cost time
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            batch_size=8,
            supervised_steps=18_000,
            coherence_steps=2_000,
            halving_steps=(13_000, 17_500),
        )
