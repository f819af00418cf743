"""Context Encoders: Feature Learning by Inpainting. Pathak, Krähenbühl, Donahue, Darrell, Efros, CVPR 2016.

Built: the paper's 128 x 128 inpainting network (an encoder like DCGAN's, a channel-wise fully-connected bottleneck and
a decoder), trained with a squared error and one discriminator that sees neither mask nor context.
  variant "random": arbitrary holes; the whole image is predicted. It is the default here, since it takes any mask.
  variant "centre": the hole is the square that leaves S/4 + overlap pixels on each side; only the central half of each
    side is predicted. Training then uses that hole in place of every batch's mask; inpainting refuses a mask that
    reaches beyond it.
Not built: the AlexNet network of the feature-learning experiments, the noise input, the conditional discriminator, and
the overlap weight of the random variant (all off in the authors' published commands).

Needs: nothing but image and mask. The size is fixed at construction: image_size = 4 * 2^n, at least 64.

Differs from the paper:
- Bottleneck of the 128 network: the paper's supplement has 4000 units; its main text presents the channel-wise
  fully-connected layer for the code of the AlexNet encoder. The default is this layer: it is the paper's own idea, and
  the network is 12 times smaller. `bottleneck="conv"` is the authors' released network.
- Overlap of the centre variant: 4 pixels as in the authors' commands; the paper says 7.
- The random variant's reconstruction covers the whole image, as in the code; `rec_region="hole"` is the paper's.
- The generator minimises the non-saturating loss, as in the code; the paper writes the minimax form.
Differs from the authors' code:
- Convolutions have no bias. Theirs have one that is set to zero before every step.
- The generator's adversarial term uses the discriminator after its step; theirs reuses activations from before it.
- Every sample has a mask of its own; in their code a batch shares one. Masks and crops are the pipeline's.
- In the centre variant a mask may be smaller than the square. The whole square is filled all the same, since the
  network was trained on no other input.

Not verified against the paper's text: the placement of normalisation and activation after the channel-wise layer
(inferred), the batch size behind "500 epochs" (64 and about 14,900 images are the authors' command and data), and the
sizes other than 64, 128 and 256, which continue the authors' rule: every doubling adds one 64 -> 64 stage, also to the
discriminator. The colours of the hole look permuted in the authors' code (117, 104, 123 in R, G, B) and are kept.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested;
all other operations here are deterministic in that mode (read in PyTorch's documentation, not measured). Batch norm
computes its statistics over the global batch, however many workers share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Context Encoders: Feature Learning by Inpainting (Pathak et al.)"
YEAR: int = 2016
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 6_048_640, "generator_d": 2_831_232}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of Context Encoder. Defaults are the paper's or, where it is silent, those of the authors' code.

    image_size: side of training and inpainted images, in pixels; 4 * 2^n, at least 64.
    overlap: pixels between the border of the hole and of the prediction; centre variant only.
    overlap_weight: factor of the squared error in the overlap; centre variant only.

    Raises ValueError for a size or an overlap that the network cannot have.
    """

    variant: Literal["random", "centre"] = "random"  # both in the paper; "random" takes any mask
    image_size: int = 128  # both variants of the code
    bottleneck: Literal["channelwise_fc", "conv"] = "channelwise_fc"  # Sec. 3 of the paper; "conv" in the code
    bottleneck_units: int = 4000  # only for bottleneck="conv"; supplement, first architecture figure
    width: int = 64  # channels of the first stage, generator and discriminator; code, nef = ngf = ndf
    mask_channel: bool = False  # whether the network sees the mask; it does in neither paper nor code
    fill_red: float = 117.0  # of 255, colour of the hole; code
    fill_green: float = 104.0  # code
    fill_blue: float = 123.0  # code

    rec_region: Literal["image", "hole"] = "image"  # random variant; code. The paper masks the difference: "hole"
    overlap: int = 4  # code; paper: 7
    overlap_weight: float = 10.0  # paper and code
    reconstruction_weight: float = 0.999  # paper and code
    adversarial_weight: float = 0.001  # paper and code

    learning_rate: float = 2e-3  # generator; code: ten times the discriminator's
    d_learning_rate: float = 2e-4  # code
    beta1: float = 0.5  # code
    beta2: float = 0.999  # code
    batch_size: int = 64  # code
    steps: int = 116_500  # code: 500 epochs of about 14,900 images

    def __post_init__(self) -> None:
        size = self.image_size
        if size < 64 or size & (size - 1):
            raise ValueError(f"image_size must be 4 * 2^n and at least 64, got {size}")
        if not 0 <= self.overlap < size // 4:
            raise ValueError(f"overlap must be at least 0 and below image_size / 4 = {size // 4}, got {self.overlap}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: 64 x 64, narrow, two steps."""
        return cls(image_size=64, width=8, batch_size=4, steps=2)

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            image_size=64,
            width=24,
            batch_size=16,
            learning_rate=1e-3,
            steps=1000,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            image_size=128,
            width=32,
            steps=20_000,
        )
