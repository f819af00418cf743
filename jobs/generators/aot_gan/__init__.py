"""Aggregated Contextual Transformations for High-Resolution Image Inpainting (AOT-GAN). Zeng, Fu, Chao, Guo, 2021.

arXiv 2104.01431; IEEE TVCG. "The code" is the authors' release (Apache-2.0). Read in the code: networks, losses and
settings, unless said otherwise below.

Built: the generator with eight AOT blocks, each of which splits its channels over the dilation rates 1, 2, 4, 8, fuses
them and gates the update by a map; the discriminator that predicts a soft mask (SM-GAN). Parameters: generator
15,200,835; discriminator 2,763,777. One phase; each step updates the generator, then the discriminator on the same
prediction.

Needs: VGG-19 features, unless perceptual and style weights are both 0. Images of H x W are padded by reflection to a
multiple of 4 and cropped back; H and W must be at least 33. The gate's statistics cover the whole map, so the result
for a tile differs from that for the whole image.

Features: VGG-19 with ImageNet's weights, on images in [0, 1] normalised by ImageNet's mean and deviation.

SM-GAN, paper (recalled) against code. `sm_targets="paper"`, the default: a real image has target 1 everywhere; a filled
image has target 1 - blur(mask), so that known pixels are called real; the generator wants 1 in the hole and is judged
there alone. `sm_targets="released"`: the code's targets are 0 for real and blur(mask) for filled images, while the
generator is pushed to 1, and so rewarded for being recognised; users reported this. It is there for comparison.
- The target is 1 - blur(mask), not blur(1 - mask): the blur pads with zeros, which would call a true border fake.
- Kernel 71 and sigma 10 are for 512 pixels. Scale both with the side: 35 and 5 for 256 (inferred).

Differs from the code:
- The discriminator gets no gradient from the generator's step. The code steps it with that gradient, too.
- The generator's adversarial loss is averaged over hole pixels (paper, recalled). In the code the weighting by the mask
  has no effect, and is NaN for a batch of empty masks.
- The gate divides by sqrt(variance + 1e-10), not by deviation + 1e-9: for a constant map the code's form amplifies
  rounding noise and its gradient reaches 1e8. `gate_norm="released"` is the code's form.
- The discriminator scores filled and real images in one pass: one power iteration of spectral norm.
- Masks, crops and flips are the pipeline's. The code trains with NVIDIA's test masks, rotated by up to 45 degrees, and
  with random resized crops and colour jitter at 512 pixels.

On a GPU the gradient of bilinear resizing with aligned corners is a scatter-add, which may differ from run to run (read
in PyTorch's documentation, not measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Aggregated Contextual Transformations for High-Resolution Image Inpainting (Zeng et al.)"
YEAR: int = 2021
NEEDS: tuple[str, ...] = ("vgg19",)
PARAMETERS: dict[str, int] = {"generator": 15_200_835, "generator_d": 2_763_777}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of AOT-GAN. Defaults are those of the authors' code, unless said otherwise.

    width: channels of the generator's first layer, at least 1; the blocks have four times as many.
    blocks: number of AOT blocks.
    gate_norm: how the gate's map is normalised; see the card.
    gan: "smgan", or the non-saturating loss of the code's other choice.
    sm_targets: targets of SM-GAN; see the card.
    soft_kernel: side of the blur's kernel in pixels, odd.
    soft_sigma: deviation of the blur in pixels.
    features: weights of VGG-19: "imagenet", "random", or a .safetensors or .pth file.
    features_seed: of the "random" weights.

    Raises ValueError for an even kernel, for a deviation of 0 or less and for less than one block.
    """

    width: int = 64
    d_width: int = 64  # channels of the discriminator's first layer
    blocks: int = 8
    gate_norm: Literal["rsqrt", "released"] = "rsqrt"  # ours

    gan: Literal["smgan", "nsgan"] = "smgan"
    sm_targets: Literal["paper", "released"] = "paper"  # paper (recalled)
    soft_kernel: int = 71  # for 512 pixels
    soft_sigma: float = 10.0  # for 512 pixels

    l1_weight: float = 1.0
    perceptual_weight: float = 0.1
    style_weight: float = 250.0
    adversarial_weight: float = 0.01
    features: str = "imagenet"
    features_seed: int = 0

    learning_rate: float = 1e-4
    d_learning_rate: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch_size: int = 8
    steps: int = 1_000_000

    def __post_init__(self) -> None:
        if self.soft_kernel < 1 or self.soft_kernel % 2 == 0:
            raise ValueError(f"soft_kernel must be odd and positive, got {self.soft_kernel}")
        if self.soft_sigma <= 0:
            raise ValueError(f"soft_sigma must be greater than 0, got {self.soft_sigma}")
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: narrow, for 64 x 64 pixels, without VGG-19."""
        return cls(
            width=4,
            d_width=4,
            blocks=2,
            soft_kernel=9,
            soft_sigma=1.25,
            perceptual_weight=0.0,
            style_weight=0.0,
            features="random",
            batch_size=2,
            steps=1,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64, without a feature network."""
        return cls(
            width=16,
            d_width=16,
            blocks=4,
            soft_kernel=9,  # 71 and 10, scaled from 512 to 64 pixels
            soft_sigma=1.25,
            features="random",
            perceptual_weight=0.0,  # no VGG-19 in a demo: random features only cost time
            style_weight=0.0,
            learning_rate=1e-3,
            batch_size=16,
            steps=800,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            d_width=32,
            blocks=8,
            soft_kernel=17,  # 71 and 10, scaled from 512 to 128 pixels
            soft_sigma=2.5,
            steps=20_000,
        )
