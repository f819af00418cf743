"""Globally and Locally Consistent Image Completion (GLCIC, Global&Local). Iizuka, Simo-Serra, Ishikawa, SIGGRAPH 2017.

ACM Transactions on Graphics 36(4), article 107. The authors released code for inference, and no code for training.

Built: the fully convolutional completion network with dilated convolutions; the discriminator that joins a global and
a local view; and training in the paper's three phases: `completion` (squared error alone), `discriminator` (completion
network fixed) and `joint`. Parameters: generator 6,072,131; discriminator 45,063,681 (39,557,121 in the paper's setting
for CelebA: image_size=160, local_size=96, d_global_layers=5).
`blend=True` adds the authors' post-processing, off by default as in their code: fast marching (Telea), then Poisson
blending. OpenCV computes both, one image after another.

Needs: nothing but image and mask. Training needs images of image_size; inpainting takes any H x W, pads image and mask
by reflection to a multiple of 4 and crops back. The authors first shrink images to at most 600 pixels; this is left to
the caller.

Differs from the paper, or decides where it is silent:
- The squared error has no normaliser in the paper. Here it is the mean over all elements of the batch, with known
  pixels counted as 0, on the scale of [0, 1], as in a public port: alpha = 0.0004 belongs to that scale.
- alpha multiplies the completion network's adversarial loss alone. The paper's min-max formula also scales the
  discriminator's loss, and this would nearly stop ADADELTA, which is independent of the scale only for gradients that
  are large against its epsilon.
- The completion network minimises -log D, not log(1 - D), as public ports do.
- Masks are the pipeline's. The paper's is one box with sides of 96 to 128 pixels (MaskConfig's "rectangle" draws sides
  of 96 to 128 with an even shrink). Crops are the pipeline's, too; the paper resizes the short side to 256 to 384 at
  random, then crops at random.
- The local window is centred on the bounding box of the hole and shifted into the image. Free-form holes may be larger
  than the window: then the local view judges a part of the hole, and the global view all of it.
Differs from public ports:
- Batch norm is before the ReLU (the paper: after each convolution). One port has it after the ReLU.
- The discriminator sees the completed image, as in the paper; one port shows it the raw output.
- Every sample has a window of its own; one port has one per batch, with the hole anywhere inside.
- The discriminator gets no gradient from the completion network's step; in one port this gradient leaks into the
  discriminator's next step.

Not verified: the ReLU on the two vectors of 1024 (one port's); biases before batch norm, which change nothing (ports');
PyTorch's initialisation (the paper states none; a port's); ADADELTA's rho 0.9 and epsilon 1e-6 (a port's, PyTorch's
defaults). The paper fills the hole with the data set's mean colour: mean_* default to Places365's, recalled and
unverified; set them for other data. The paper's text was not at hand, so no section numbers are given; statements about
it come from the authors' README, summaries and ports. The paper states a receptive field of 307 x 307 pixels; this
network has 299 or 303, depending on the pixel.

In the second phase the completion network stays in training mode without gradients, so that its statistics are those
of the phases around it. Batch norm computes its statistics over the global batch, over all processes.

On a GPU, convolutions and their gradients may differ from run to run unless deterministic algorithms are requested. The
same is true of the gradient of the window's gather, which is a scatter-add (read in PyTorch's documentation, not
measured).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PAPER: str = "Globally and Locally Consistent Image Completion (Iizuka et al.)"
YEAR: int = 2017
NEEDS: tuple[str, ...] = ()
PARAMETERS: dict[str, int] = {"generator": 6_072_131, "generator_d": 45_063_681}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of GLCIC. Defaults are the paper's for Places2, as far as they are known, else a public port's.

    image_size: side of training images in pixels, a multiple of 4; the discriminator's linear layers fix it.
    local_size: side of the window that the discriminator's local view sees, in pixels.
    d_global_layers: strided convolutions of the discriminator's global view, 1 to 6; the local view has 5.

    Raises ValueError for sizes and numbers of layers out of range, and for a width that cannot be halved.
    """

    image_size: int = 256  # paper
    local_size: int = 128  # paper
    width: int = 64  # channels of the generator's first layer; paper. Even
    d_width: int = 64  # channels of the discriminator's first layers; paper
    d_units: int = 1024  # length of the vector of each view; paper
    d_global_layers: int = 6  # paper; 5 for CelebA's 160 pixels

    mean_red: float = 116.1  # of 255, colour of the hole: the data's mean (paper); Places365's (recalled)
    mean_green: float = 113.7
    mean_blue: float = 105.5

    reconstruction_weight: float = 1.0  # paper
    adversarial_weight: float = 0.0004  # paper, alpha

    optimizer: Literal["adadelta", "adam"] = "adadelta"  # paper; another port trains with Adam, learning rate 4e-4
    learning_rate: float = 1.0  # a port's, the usual one of ADADELTA
    d_learning_rate: float = 1.0
    beta1: float = 0.9  # Adam only; PyTorch's
    beta2: float = 0.999
    batch_size: int = 96  # paper
    completion_steps: int = 90_000  # paper, T_C
    discriminator_steps: int = 10_000  # paper, T_D
    joint_steps: int = 400_000  # paper: T_train = 500,000 in all

    blend: bool = False  # whether to apply the authors' post-processing; off in their code, too

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be even and at least 2, since a layer has half of it; got {self.width}")
        if self.image_size < 4 or self.image_size % 4:
            raise ValueError(f"image_size must be a positive multiple of 4, got {self.image_size}")
        if not 1 <= self.local_size <= self.image_size:
            raise ValueError(f"local_size must lie in 1 to image_size = {self.image_size}, got {self.local_size}")
        if not 1 <= self.d_global_layers <= 6:
            raise ValueError(f"d_global_layers must lie in 1 to 6, got {self.d_global_layers}")

    @classmethod
    def tiny(cls) -> Config:
        """Return settings for tests: 64 x 64 pixels, narrow, every phase."""
        return cls(
            image_size=64,
            local_size=32,
            width=4,
            d_width=4,
            d_units=8,
            batch_size=4,
            completion_steps=1,
            discriminator_steps=1,
            joint_steps=1,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return settings for the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            image_size=64,
            local_size=32,  # half the side, as the paper's
            width=16,
            d_width=8,
            d_units=64,
            batch_size=8,
            completion_steps=720,  # a larger share than the paper's 18 %: colours are learnt first
            discriminator_steps=20,
            joint_steps=80,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            image_size=128,
            local_size=64,
            width=32,
            d_width=32,
            d_units=512,
            completion_steps=17_500,
            discriminator_steps=500,
            joint_steps=2_000,
        )
