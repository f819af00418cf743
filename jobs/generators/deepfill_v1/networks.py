"""DeepFill v1's networks: the coarse network, the refinement network with contextual attention, and a critic."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from files.errors import UserError
from jobs.layers.attention import ContextualAttention
from jobs.layers.composite import composite
from jobs.layers.initialisation import draw_glorot
from jobs.recipe.padding import check_sides


class Generator(nn.Module):
    """Predict the hole coarsely, paste the prediction, and refine it with and without attention to the known parts.

    Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, Sec. 3.1 and 4.3.

    width: channels of the first layer.
    mask_pool: how the attention shrinks the mask; see `ContextualAttention`.
    tf_same: whether strided convolutions pad as TensorFlow's do.
    attention: whether the second stage has a branch with contextual attention. Without it the second stage has the
        layers of the first, which is the paper's baseline in Table 1.

    forward(image, mask, refine=True):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), 1 = hole.
        refine: whether to compute the second stage.
    Returns the coarse and the refined image, each (N, 3, H, W) in [-1, 1]; without refine the coarse one alone.
    Raises UserError if H or W is no multiple of 8.
    """

    def __init__(
        self,
        *,
        width: int,
        mask_pool: Literal["nearest", "max"] = "nearest",
        tf_same: bool = False,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.coarse = Coarse(width, tf_same)
        self.refinement = Refinement(width, mask_pool, tf_same) if attention else Coarse(width, tf_same)
        self.apply(draw_glorot)

    def forward(self, image: Tensor, mask: Tensor, refine: bool = True) -> tuple[Tensor, ...]:
        check_sides(image, 8)
        known = image * (1 - mask)
        coarse = self.coarse(known, mask)
        if not refine:
            return (coarse,)
        return coarse, self.refinement(composite(coarse, known, mask), mask)


class Coarse(nn.Module):
    """Compute one stage without attention: down by 4, dilated convolutions, up by 4.

    forward(known, mask):
        known: the image, (N, 3, H, W) in [-1, 1], 0 in the hole; as second stage, with the first one's output there.
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1].
    """

    def __init__(self, width: int, tf_same: bool) -> None:
        super().__init__()
        c = width
        self.layers = nn.Sequential(
            *_conv(5, c, 5),
            *_conv(c, 2 * c, stride=2, tf_same=tf_same),
            *_conv(2 * c, 2 * c),
            *_conv(2 * c, 4 * c, stride=2, tf_same=tf_same),
            *_conv(4 * c, 4 * c),
            *_conv(4 * c, 4 * c),
            *_dilated(4 * c),
            *_conv(4 * c, 4 * c),
            *_conv(4 * c, 4 * c),
            *_decoder(c),
        )

    def forward(self, known: Tensor, mask: Tensor) -> Tensor:
        return self.layers(_with_planes(known, mask)).clamp(-1, 1)


class Refinement(nn.Module):
    """Compute the second stage: two encoders on one input, one of them with contextual attention, and one decoder.

    forward(pasted, mask):
        pasted: the image with the coarse output in the hole, (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1].
    """

    def __init__(self, width: int, mask_pool: Literal["nearest", "max"], tf_same: bool) -> None:
        super().__init__()
        c = width
        self.hallucination = nn.Sequential(
            *_conv(5, c, 5),
            *_conv(c, c, stride=2, tf_same=tf_same),
            *_conv(c, 2 * c),
            *_conv(2 * c, 2 * c, stride=2, tf_same=tf_same),
            *_conv(2 * c, 4 * c),
            *_conv(4 * c, 4 * c),
            *_dilated(4 * c),
        )
        self.before_attention = nn.Sequential(
            *_conv(5, c, 5),
            *_conv(c, c, stride=2, tf_same=tf_same),
            *_conv(c, 2 * c),
            *_conv(2 * c, 4 * c, stride=2, tf_same=tf_same),
            *_conv(4 * c, 4 * c),
            *_conv(4 * c, 4 * c, activation=nn.ReLU),
        )
        self.attention = ContextualAttention(mask_pool=mask_pool)
        self.after_attention = nn.Sequential(*_conv(4 * c, 4 * c), *_conv(4 * c, 4 * c))
        self.merge = nn.Sequential(*_conv(8 * c, 4 * c), *_conv(4 * c, 4 * c), *_decoder(c))

    def forward(self, pasted: Tensor, mask: Tensor) -> Tensor:
        seen = _with_planes(pasted, mask)
        hallucinated = self.hallucination(seen)
        features = self.before_attention(seen)
        attended = self.after_attention(self.attention(features, features, mask))
        return self.merge(torch.cat((hallucinated, attended), dim=1)).clamp(-1, 1)


class Critic(nn.Module):
    """Score an image by strided convolutions without norm and a linear layer: a Wasserstein critic.

    Yu et al., CVPR 2018, Sec. 3.2; widths of the authors' code. It can be differentiated twice.

    size: side of the images, in pixels.
    width: channels of the first layer.
    factors: channels of the convolutions, as multiples of `width`. The global critic has (1, 2, 4, 4), the local one
        (1, 2, 4, 8).
    tf_same: whether the convolutions pad as TensorFlow's do.

    forward(image):
        image: (N, 3, size, size) in [-1, 1].
    Returns scores (N, 1).
    Raises UserError for images of another size.
    """

    def __init__(self, *, size: int, width: int, factors: tuple[int, ...], tf_same: bool = False) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        in_channels = 3
        for factor in factors:
            layers += _conv(in_channels, factor * width, 5, stride=2, tf_same=tf_same)[:-1]
            layers.append(nn.LeakyReLU(0.2))
            in_channels = factor * width
            size = -(-size // 2)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(in_channels * size * size, 1))
        self.apply(draw_glorot)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2:] != (self.size, self.size):
            side, given = self.size, tuple(image.shape[-2:])
            raise UserError(f"the critic's linear layer fixes the size: H and W must be {side}, got {given}")
        return self.layers(image)


def _with_planes(image: Tensor, mask: Tensor) -> Tensor:
    # The ones distinguish zeros in the hole from zero padding at the border.
    return torch.cat((image, torch.ones_like(mask), mask), dim=1)  # (N, 5, H, W)


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    activation: type[nn.Module] = nn.ELU,
    tf_same: bool = False,
) -> list[nn.Module]:
    """Return the layers of a convolution with zero padding "same" and its activation."""
    padding = dilation * (kernel_size - 1) // 2
    before: list[nn.Module] = []
    if tf_same and stride == 2:  # on even sizes TensorFlow pads k - 2 in all, an odd one below and right
        first, last, padding = (kernel_size - 2) // 2, (kernel_size - 1) // 2, 0
        before = [nn.ZeroPad2d((first, last, first, last))]
    return [*before, nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation), activation()]


def _dilated(channels: int) -> list[nn.Module]:
    return [part for dilation in (2, 4, 8, 16) for part in _conv(channels, channels, dilation=dilation)]


def _decoder(width: int) -> list[nn.Module]:
    """Return the layers from 4 * width channels at a quarter of the size to an image, not yet clamped."""
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        *_conv(4 * width, 2 * width),
        *_conv(2 * width, 2 * width),
        nn.Upsample(scale_factor=2, mode="nearest"),
        *_conv(2 * width, width),
        *_conv(width, width // 2),
        nn.Conv2d(width // 2, 3, 3, padding=1),
    ]
