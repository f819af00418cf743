"""EdgeConnect: first complete the edges in the hole, then paint between them.

Nazeri, Ng, Joseph, Qureshi, Ebrahimi, "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning",
arXiv 1901.00212, 2019; workshop version "EdgeConnect: Structure Guided Image Inpainting using Edge Prediction", ICCV
Workshops 2019. "The code" is the authors' release beside it.

What is built: both generators (edges from grey image, visible edges and mask; image from visible image and edges), both
70x70 patch discriminators, and the four stages as phases: `edges`, `image` (with the true edges), `inpaint` (with the
completed edges, edge generator fixed), and `joint` (both generators together; optional, 0 steps by default).
Parameters: edges 10,761,089, image 10,774,595, edges_d 2,762,752, image_d 2,763,776.
Sides that are no multiples of 4 are padded and cropped back; the shortest side is 9 pixels.

Where paper and code differ, this follows the code, which made the published images:
- Strided convolutions are 4x4; the paper's receptive field of 205 would need 3x3 (they reach 208).
- The image discriminator sees the image alone; the paper (unverified) also shows it the edges.
- L1 is a mean over all pixels divided by the share of the hole: it also counts visible pixels.
- Style is compared in relu2_2, relu3_4, relu4_4 and relu5_2, on the hole; the paper names the perceptual loss's layers
  and (unverified) the visible part.
- `inpaint` is the final stage. The paper's final stage, `joint` without the edge discriminator at 1e-6, gained little
  by the authors' own account. `joint` here keeps the edge discriminator, as the code does, at the paper's rate
  (unverified).
- VGG-19 sees images in [0, 1] without ImageNet's mean and deviation, as in the code: the loss weights belong to that
  scale.

Where this follows neither, and why:
- The code, when testing, shows the image generator raw edge probabilities everywhere. Here it always sees the input of
  its training, as the paper defines it: predicted edges in the hole, Canny's outside.
- The code fails on today's PyTorch (a discriminator steps before the generator's backward pass, and the joint stage
  goes through the edge generator's graph twice). Here the generator steps first, against the discriminator before its
  step, which is the gradient that older versions computed; `joint` minimises both generators' losses in one step.
- The code lets the power iterations of the fixed edge generator run on in the third stage. Here it is in eval mode.
- Real and fake edges go through the discriminator as one batch: one power iteration instead of two, and features that
  are compared under exactly equal weights.
- Spectral norm starts from 15 power iterations (PyTorch's parametrization) instead of one.
- A network keeps its Adam moments from phase to phase; the code's stages are separate runs (fresh moments: inferred).
- The paper lowers each stage's rate to 1e-5 when the loss stops falling, without a number of steps (unverified); the
  code has no schedule, and neither has this.
- Mirrored padding mirrors the mask as well, so that no hidden pixel returns as a visible one.
- "Share of the hole" is that of the global batch, for any number of workers. An empty hole counts as one pixel; the
  code divides by zero there.
- Random and masked edges in training (sigma 0, Canny on the visible part) are not offered: an edge column is computed
  once, from the whole image. Edges within about 4 sigma of the rim thus know a little of the hole in training, not in
  evaluation; the code is the same.
- Masks, crops and flips are the pipeline's; the code draws blocks of a quarter of the image or irregular holes.

Section numbers below are recalled (unverified), as is everything marked so.

Needs: the column `edge` (Canny, sigma 2) and VGG-19 features, unless perceptual and style weights are both 0.
On a GPU the gradient of reflection padding is summed in no fixed order unless deterministic algorithms are requested;
PyTorch 2.15 then has a deterministic kernel, though its documentation still says it refuses (not run on a GPU here).
Otherwise only cuDNN's convolutions sum in varying order, unless cuDNN's deterministic mode is on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER = "EdgeConnect: Generative Image Inpainting with Adversarial Edge Learning (Nazeri et al.)"
YEAR = 2019
NEEDS = ("edge", "vgg19")
PARAMETERS: dict[str, int] = {"edges": 10_761_089, "edges_d": 2_762_752, "image": 10_774_595, "image_d": 2_763_776}


@dataclass(frozen=True, kw_only=True)
class Config:
    """EdgeConnect's hyperparameters. Defaults: the paper's, or the authors' code's where the paper is silent.

    width: channels of the first layer of all four networks.
    residual_blocks: number of residual blocks in each generator.
    *_steps: global steps of the phase of that name; 0 leaves the phase out.
    learning_rate: learning rate of the generators.
    joint_learning_rate: learning rate of the generators in the phase `joint`.
    d2g: learning rate of the discriminators, divided by that of the generators.
    gan: adversarial loss: "nsgan", binary cross-entropy; "lsgan", least squares; or "hinge".
    features: weights of VGG-19: "imagenet", "random" or the path of a file.
    features_seed: seed of the "random" weights.
    """

    width: int = 64  # Sec. 3 and code
    residual_blocks: int = 8  # Sec. 3 and code

    # Two epochs of Places2's 1.8 million images; the README asks for one or two, the code stops at 2,000,000 steps.
    edges_steps: int = 450_000
    image_steps: int = 450_000
    inpaint_steps: int = 450_000
    joint_steps: int = 0  # the authors to users: no significant gain, much slower

    batch_size: int = 8  # Sec. 4 and code
    learning_rate: float = 1e-4  # Sec. 4 and code
    joint_learning_rate: float = 1e-6  # Sec. 4 (unverified)
    d2g: float = 0.1  # code
    beta1: float = 0.0  # code
    beta2: float = 0.9  # code
    gan: Literal["nsgan", "lsgan", "hinge"] = "nsgan"  # code's default

    edges_adversarial_weight: float = 1.0  # code
    feature_matching_weight: float = 10.0  # code
    l1_weight: float = 1.0  # paper and the code's example configuration
    adversarial_weight: float = 0.1  # the same
    perceptual_weight: float = 0.1  # the same
    style_weight: float = 250.0  # the same

    features: str = "imagenet"
    features_seed: int = 0

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: every network and phase, no VGG-19, a fraction of a second per step on a CPU."""
        return cls(
            width=4,
            residual_blocks=1,
            edges_steps=1,
            image_steps=1,
            inpaint_steps=1,
            joint_steps=1,
            batch_size=2,
            perceptual_weight=0.0,
            style_weight=0.0,
            features="random",
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            residual_blocks=4,
            batch_size=16,
            learning_rate=1e-3,  # the paper's 1e-4 needs far more steps than a demo has
            joint_learning_rate=1e-4,  # the decay to a tenth, as the paper's
            d2g=0.01,  # keeps the edge discriminator from overrunning its narrow generator
            beta1=0.5,
            edges_steps=80,
            image_steps=140,
            inpaint_steps=400,
            joint_steps=80,
            adversarial_weight=0.01,
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
            residual_blocks=8,
            edges_steps=4_000,
            image_steps=4_000,
            inpaint_steps=10_000,
            joint_steps=2_000,
        )
