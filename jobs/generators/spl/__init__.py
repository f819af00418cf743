"""SPL: fill the image and predict the features that a classifier computes from the complete image.

Zhang, Zhu, Tai, Wang, Chu, Ni, Wang, Yang, "Context-Aware Image Inpainting with Learned Semantic Priors", IJCAI 2021,
arXiv 2106.07220. "The code" is the authors' release beside it; its layers, losses and weights are followed here, since
only abstract and introduction of the paper could be read. All statements about the paper's body are unverified, and its
own table of results is not known to us.

What is built: an image encoder with region normalisation (RN-B), a semantic prior learner that sees the masked image at
twice the size, eight residual blocks modulated by its layout (SPADE), a decoder with learnable region normalisation
(RN-L), and a 70x70 patch discriminator. The learner also predicts, from the masked image, the features that a frozen
teacher computes from the complete one. All of it is trained together, in three phases that differ in the learning rate
and in the use of the teacher: `joint`, `decayed` and `without_prior`.
Parameters: generator 45,597,223 (with the 1x1 head of the prior, 39,064), discriminator 2,763,776. The teacher has
2,578,192; it belongs to no network and is not saved.
Sides that are no multiples of 4 are padded and cropped back; the shortest side is 9 pixels (24 in training, for the
discriminator).

Follows the code, where the paper is silent, differs or is unverified:
- One teacher at one scale, TResNet-L cut after its second stage, 152 channels, L1. It sees RGB in [0, 1] without mean
  and deviation.
- Hole pixels count 3 times in the image's L1 and 4 times in the prior's; both act on the raw output, as does the
  adversarial loss. No perceptual, style or feature-matching loss.
- RN-B adds the biases of both regions everywhere; `region_bias` adds each in its region alone, as in the paper of
  region normalisation.
- RN-L's threshold is 0.8. Its region is empty until its map has learned to exceed that.
- The mask is no channel of the image encoder, whose hole is painted white.
- The mask is shrunk by taking the nearest pixel, which may lose a thin stroke: it then counts as known.

Differs from the code:
- The teacher's image is the training image enlarged twice, bilinear (antialiased, which changes nothing where an image
  grows); the code reads the original file at 512 pixels. Shards store one size, so the teacher sees no more detail than
  the generator's image has. The code does the same where only 256-pixel files exist.
- Region normalisation is computed in closed form from masked sums instead of two passes; equal up to rounding.
  Variances are those of the centred values, in float32 at least.
- The 1x1 convolution over 16 concatenated maps is summed map by map with slices of its weight; equal up to rounding.
- The teacher's in-place batch norms are converted to ordinary ones, exactly (|weight| + 1e-5); its blur is float32, not
  float16, and it stays in eval mode.
- The discriminator gives logits and the loss takes them: the same value as a sigmoid and binary cross-entropy, without
  saturation. Its parameters are fixed in the generator's update; the code lets gradients gather there and drops them.
- Spectral norm starts from 15 power iterations (PyTorch's parametrization) instead of one; real and fake go through the
  discriminator as one batch, one power iteration instead of two.
- The generator gets the complete image and blanks the hole first; no layer sees hidden pixels. Masks are exactly 0 or
  1; the code does not binarise its resized ones.
- Training runs over the full set; the released code's data set says it has 100 images.
- Where the prior is switched off (Paris only), its head is frozen; with weight 0, as in the code, Adam's momentum would
  still move it. The output does not depend on it.
- Masks, crops and flips are the pipeline's. The code resizes without cropping, draws its training masks from those of
  the test set, and picks the checkpoint that is best on it; here the last checkpoint is used.
- The code's seed, 67454, is the pipeline's.

Steps: the authors ask for about 30 epochs and 10 more at a tenth of the rate on Places2 and CelebA, 50 + 10 + 10 on
Paris StreetView, the last 10 without prior. Defaults are Places2's 1.8 million images at batch 8, which is stated for
Paris only (inferred for Places2).

Needs: a teacher, unless prior_weight is 0 (then none is loaded), and only for training: the first step loads it.
`teacher` is
- "tresnet_l", the authors': TResNet-L of the asymmetric loss's model zoo (github.com/Alibaba-MIIL/ASL), trained on Open
  Images V6, Open_ImagesV6_TRresNet_L_448.pth. It is not downloaded here, since host, digest and licence of the file are
  not verified: put it into the folder `checkpoints` of torch's hub, on every worker;
- the absolute path of such a .pth or .safetensors file. The same network of timm, tresnet_l.miil_in1k, Apache-2.0, is
  accepted too (inferred substitute: trained on ImageNet; its names were read in timm's code, no file of it was tried);
- a torchvision model such as "resnet50", which is downloaded, cut after its last layer at an eighth of the enlarged
  image, and sees images normalised with ImageNet's mean and deviation (inferred; the head gets that model's number of
  channels);
- "random", TResNet-L's layers with seeded weights: for tests and demonstrations, not for results.

`checkpoint_blocks` saves most of the memory for up to a third more computation (both calculated, not measured), with
the same gradients.

On a GPU, the gradient of reflection padding is summed in no fixed order and convolutions may differ from run to run,
unless deterministic algorithms are requested; all other operations in training have deterministic forms, too (read in
PyTorch's documentation, not run on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAPER: str = "Context-Aware Image Inpainting with Learned Semantic Priors (Zhang et al.)"
YEAR: int = 2021
NEEDS: tuple[str, ...] = ("teacher",)
PARAMETERS: dict[str, int] = {"generator": 45_597_223, "generator_d": 2_763_776}


@dataclass(frozen=True, kw_only=True)
class Config:
    """SPL's settings; defaults are those of the authors' code. "[0, 1]" marks weights for images in that range.

    Raises ValueError for counts below 1, for a negative prior_weight, and for another teacher_width than 76 unless the
    teacher is "random".
    """

    width: int = 64  # channels of the first layers; code
    growth: int = 32  # channels that a layer of a residual dense block adds; code
    dense_blocks: int = 16  # code
    dense_layers: int = 6  # in each dense block, not counting its fusion; code
    residual_blocks: int = 4  # plain ones, after the dense blocks; code
    modulated_blocks: int = 8  # code
    hidden: int = 128  # channels between a SPADE's layout and its scale and shift; code
    d_width: int = 64  # channels of the discriminator's first layer; code
    region_threshold: float = 0.8  # RN-L counts a place as hole from this value on; code
    region_bias: bool = False  # RN-B's biases in their own regions only; code: everywhere

    teacher: str = "tresnet_l"  # or a file, a torchvision model, "random"; code: TResNet-L
    teacher_width: int = 76  # TResNet-L's; another only with "random", for tests and demonstrations
    teacher_seed: int = 0  # draws the "random" one

    l1_weight: float = 10.0  # code, [0, 1]
    l1_hole_weight: float = 3.0  # of a hole pixel, where a known one has 1; code
    prior_weight: float = 1.0  # code; 0 trains without any teacher
    prior_hole_weight: float = 4.0  # code
    adversarial_weight: float = 1.0  # code

    learning_rate: float = 1e-4  # code
    d_learning_rate: float = 1e-4  # code
    decay: float = 0.1  # factor on both rates after `joint`; authors' README
    beta1: float = 0.0  # code
    beta2: float = 0.9  # code
    batch_size: int = 8  # authors' README, for Paris: 2 GPUs of 4; others not stated (unverified)
    joint_steps: int = 6_750_000  # about 30 epochs of Places2; authors' README
    decayed_steps: int = 2_250_000  # 10 more
    without_prior_steps: int = 0  # Paris only: the last 10 epochs

    checkpoint_blocks: bool = False  # recompute activations inside blocks instead of keeping them; ours

    def __post_init__(self) -> None:
        for name in ("width", "growth", "dense_blocks", "dense_layers", "hidden", "d_width", "teacher_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.prior_weight < 0:
            raise ValueError(f"prior_weight must not be negative, got {self.prior_weight}")
        if self.teacher_width != 76 and self.teacher != "random":
            raise ValueError(f'teacher_width is 76 unless the teacher is "random", got {self.teacher_width}')

    @classmethod
    def tiny(cls) -> Config:
        """Return the preset for tests: narrow, every phase, a random teacher; sides are multiples of 4, at least 24."""
        return cls(
            width=4,
            growth=4,
            dense_blocks=2,
            dense_layers=2,
            residual_blocks=1,
            modulated_blocks=1,
            hidden=8,
            d_width=4,
            teacher="random",
            teacher_width=4,
            batch_size=2,
            joint_steps=1,
            decayed_steps=1,
            without_prior_steps=1,
        )

    @classmethod
    def demo(cls) -> Config:
        """Return the preset of the demo: minutes on two CPU cores, at 64 x 64."""
        return cls(
            width=12,
            growth=8,
            dense_blocks=2,
            dense_layers=3,
            residual_blocks=1,
            modulated_blocks=3,
            hidden=24,
            d_width=8,
            teacher="random",  # a demo downloads nothing
            teacher_width=8,
            prior_weight=0.1,  # small, since random features say little
            adversarial_weight=0.002,
            batch_size=8,
            learning_rate=5e-4,  # the paper's 1e-4 needs far more steps than a demo has
            d_learning_rate=2e-4,
            decay=0.2,
            beta1=0.9,  # steadier than the paper's 0 over so few steps
            beta2=0.99,
            joint_steps=220,
            decayed_steps=70,
        )

    @classmethod
    def small(cls) -> Config:
        """Return settings for a night on CPU cores or hours on a GPU: half the paper's widths, at 128 x 128."""
        return replace(
            cls.demo(),
            width=32,
            growth=16,
            dense_blocks=8,
            dense_layers=6,
            residual_blocks=4,
            modulated_blocks=8,
            hidden=64,
            d_width=32,
            joint_steps=15_000,
            decayed_steps=5_000,
        )
