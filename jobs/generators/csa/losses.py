"""CSA's own losses: consistency with VGG-16 in the hole, and the relativistic average least-squares GAN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from jobs.recipe.collectives import global_mean, ratio
from jobs.recipe.precision import wide_dtype


def consistency(features: Sequence[Tensor], target: Tensor, hole: Tensor) -> Tensor:
    """Squared distance to the target in the hole, the sum over the maps, the mean over hole cells and channels.

    Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019, Sec. 3.3; the mean is ours, so that the
    weight does not depend on the hole's size. In float32 at least.
    features: maps (N, C, h, w), any range; target: the same shape; hole: (N, 1, h, w), 1 = hole. 0 without a hole cell.
    """
    dtype = wide_dtype(target)
    target, hole = target.to(dtype), hole.to(dtype)
    total = sum(((feature.to(dtype) - target).square() * hole).sum() for feature in features)
    channels = target.shape[1]
    return ratio(total, channels * hole.sum(), at_least=channels)


def relativistic(above: Tensor, below: Tensor) -> Tensor:
    """1/2 (mean (a - mean b - 1)^2 + mean (b - mean a + 1)^2): scores `above` shall exceed the mean of `below` by 1.

    Jolicoeur-Martineau, "The Relativistic Discriminator", ICLR 2019, RaLSGAN, halved as in CSA. Inner means are over
    the global batch and get gradients, too. The discriminator's loss is relativistic(real, fake), the generator's
    relativistic(fake, real). above, below: scores, any shape. In float32 at least.
    """
    dtype = wide_dtype(above)
    above, below = above.to(dtype), below.to(dtype)
    lifted = above - global_mean(below) - 1
    lowered = below - global_mean(above) + 1
    return (lifted.square().mean() + lowered.square().mean()) / 2
