"""Resolution-robust Large Mask Inpainting with Fourier Convolutions (LaMa). Suvorov et al., WACV 2022.

arXiv 2109.07161. "The code" is the authors' release (Apache-2.0); networks, losses and settings are read in it.

Built: the generator with fast Fourier convolutions (`blocks=9`; `blocks=18` is Big LaMa); the pix2pixHD discriminator;
the perceptual loss on a dilated ResNet-50, whose features reach far; the gradient penalty R1. Parameters: generator
27,048,835 (Big LaMa: 50,975,875); discriminator 6,962,369. One phase; each step updates the generator, then the
discriminator on the same prediction.

Trained at 256 pixels, the generator fills images of any size: a Fourier convolution sees the whole map. Images of H x W
are padded by reflection to a multiple of 8 and cropped back; H and W must be at least 9.

Needs: a ResNet-50 for the perceptual loss, unless its weight is 0.
- The paper's results need an encoder trained on scene parsing (ADE20K). `features` then is its file, with
  `features_stem="deep"`, its digest in `features_sha256` and `perceptual_weight=30`.
- The default, `features="imagenet"`, is torchvision's ResNet-50 with the same dilation and the weight 1 of the authors'
  own ablation. That weight was chosen for another ImageNet file, so call the result "LaMa recipe, ImageNet features".
  The paper finds ADE20K features better for large holes (recalled).
- `features_dilated=False` with `perceptual_weight=0.3` is another of their ablations.

Set `train.clip_norm` to 1, as the authors do: the learning rate of 0.001 depends on it. The masks of their training are
`train.samples.masks.kind: lama_train`; they differ from the evaluation families thin, medium and thick.

Losses are computed on images in [0, 1], on the raw prediction (`adversarial_on="composite"` for ghosts of the mask's
edge, which the authors advise then).

Differs from the code:
- The discriminator's update uses the prediction of the generator's update, not that of the updated generator.
- Batch norm uses the global batch; theirs uses each GPU's share.
- The two convolutions of local features are one with both outputs; the numbers are equal.
- Masks, crops and flips are the pipeline's. The code also warps, distorts and recolours its crops of Places.
- The batch of 30 is the paper's (recalled); the code has 10 per GPU.
- Padding is by reflection that leaves out the border pixel.
- A batch without a single known pixel trains the discriminator alone.

Kept from the code: ReLU follows batch norm in both halves of a residual block; the l1 counts known pixels alone;
known pixels of a fake are labelled real; R1 has no factor 1/2; the perceptual loss is a sum over the stages.

The Fourier transform is computed in float32 at least, since half precision supports few sizes.

On a GPU, the gradient of reflection padding is summed in no fixed order and convolutions may differ from run to run,
unless deterministic algorithms are requested (read in PyTorch's documentation, not run on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Resolution-robust Large Mask Inpainting with Fourier Convolutions (Suvorov et al.)"
YEAR: int = 2022
NEEDS: tuple[str, ...] = ("resnet50",)
PARAMETERS: dict[str, int] = {"generator": 27_048_835, "generator_d": 6_962_369}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of LaMa. Defaults are those of the authors' code, with ImageNet features.

    width: channels of the generator's first layer.
    blocks: residual blocks; 18 is Big LaMa.
    adversarial_on: the image that losses and discriminator see: the prediction, or the filled image.
    features: weights of ResNet-50: "imagenet", "random" or the path of a file.
    features_stem: first layers of the file's network; see `ResNet50`.
    features_dilated: whether stages 3 and 4 of the ResNet-50 are dilated.
    features_sha256: digest that the file must have, in hex; "any" for no check.
    features_seed: of the "random" weights.

    Raises ValueError for less than one block, and for a deep stem without a file.
    """

    width: int = 64
    blocks: int = 9
    d_width: int = 64  # channels of the discriminator's first layer
    adversarial_on: Literal["raw", "composite"] = "raw"

    l1_weight: float = 10.0
    adversarial_weight: float = 10.0
    feature_matching_weight: float = 100.0
    perceptual_weight: float = 1.0  # 30 with ADE20K features
    gradient_penalty_weight: float = 0.001

    features: str = "imagenet"
    features_stem: Literal["conv7", "deep"] = "conv7"
    features_dilated: bool = True
    features_sha256: str = "any"
    features_seed: int = 0

    learning_rate: float = 1e-3
    d_learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    batch_size: int = 30  # paper (recalled); the code: 10 per GPU
    steps: int = 1_000_000

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")
        if self.features_stem == "deep" and self.features in ("imagenet", "random"):
            raise ValueError(f"features_stem deep needs a file in features, got {self.features!r}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: narrow, two blocks, without ResNet-50."""
        return cls(
            width=4,
            blocks=2,
            d_width=4,
            perceptual_weight=0.0,
            features="random",
            batch_size=2,
            steps=1,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=16,
            blocks=4,
            d_width=16,
            features="random",
            perceptual_weight=0.0,  # no ResNet-50 in a demo: random features only cost time
            batch_size=16,
            steps=800,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            blocks=9,
            d_width=32,
            steps=20_000,
        )
