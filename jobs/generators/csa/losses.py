"""CSA's own losses: consistency with VGG-16 in the hole, and the relativistic average least-squares GAN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from jobs.recipe.collectives import global_mean, ratio
from jobs.recipe.precision import wide_dtype


def consistency(features: Sequence[Tensor], target: Tensor, hole: Tensor) -> Tensor:
    """Compute the consistency loss: the squared distance of maps to a target in the hole.

    Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019, Sec. 3.3. The loss is a sum over the maps
    and a mean over hole cells and channels; the mean is ours, so that the weight does not depend on the hole's size.
    features: maps (N, C, h, w), any range.
    target: (N, C, h, w).
    hole: (N, 1, h, w), 1 = hole.
    Returns a scalar in float32 at least; 0 without a hole cell.
    """
    dtype = wide_dtype(target)
    target, hole = target.to(dtype), hole.to(dtype)
    total = sum(((feature.to(dtype) - target).square() * hole).sum() for feature in features)
    channels = target.shape[1]
    return ratio(total, channels * hole.sum(), at_least=channels)


def relativistic(above: Tensor, below: Tensor) -> Tensor:
    """Compute 1/2 (mean (a - mean b - 1)^2 + mean (b - mean a + 1)^2), which pulls a to 1 above the mean of b.

    Jolicoeur-Martineau, "The Relativistic Discriminator", ICLR 2019, RaLSGAN, halved as in CSA. The discriminator's
    loss is relativistic(real, fake), the generator's relativistic(fake, real). Inner means are over the global batch
    and get gradients, too.
    above: scores a, any shape.
    below: scores b, any shape.
    Returns a scalar in float32 at least.
    """
    dtype = wide_dtype(above)
    above, below = above.to(dtype), below.to(dtype)
    lifted = above - global_mean(below) - 1
    lowered = below - global_mean(above) + 1
    return (lifted.square().mean() + lowered.square().mean()) / 2
