"""Shift-Net's own losses: guidance, and the authors' later additions on the hole and in VGG-16. Unweighted scalars."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from jobs.layers.vgg import VGG16
from jobs.layers.windows import border_discount, crop_windows
from jobs.recipe.losses import gram
from jobs.recipe.precision import wide_dtype

VGG_LAYERS = ("pool1", "pool2", "pool3")


def guidance(decoded: Tensor, target: Tensor, hole: Tensor) -> Tensor:
    """L_g: compare the decoder's features in the hole with the encoder's features of the true image there.

    Yan et al., ECCV 2018, guidance loss: |D_y - E_y(truth)|^2 at hole cells y; here the mean over all elements of the
    maps, hole or not, as in the authors' first code. decoded, target: (N, C, h, w), the latter gets no gradient; hole:
    (N, 1, h, w), 0 or 1. Computed in float32 at least.
    """
    dtype = wide_dtype(decoded)
    return ((decoded.to(dtype) - target.detach().to(dtype)) * hole).square().mean()


def crop_hole(tensor: Tensor, mask: Tensor, size: int) -> Tensor:
    """The size x size pixels from each sample's topmost row and leftmost column of hole on, moved inside the image.

    tensor: (N, C, H, W); mask: (N, 1, H, W), 1 = hole. Returns (N, C, size, size); the top left corner for an empty
    mask. Raises ValueError if the image is smaller.
    """
    height, width = tensor.shape[-2:]
    if min(height, width) < size:
        raise UserError(f"hole_size is {size}, but the image has {height} x {width} pixels; lower hole_size")
    # The argmax of zeros and ones is the first one.
    rows = mask.amax(dim=3).squeeze(1).argmax(dim=1, keepdim=True).clamp_max(height - size)
    columns = mask.amax(dim=2).squeeze(1).argmax(dim=1, keepdim=True).clamp_max(width - size)
    return crop_windows(tensor, torch.cat((rows, columns), dim=1), size)


def discounted_l1(output: Tensor, image: Tensor, gamma: float = 0.9) -> Tensor:
    """Mean of |output - image| * w over a square hole, where w falls from the border, which is sure, to the middle.

    w(i, j) = max(gamma^min(i, S - i), gamma^min(j, S - j)), rows and columns counted from 0, as in the authors' later
    code: the last row is 1 from the border and the first is 0. output, image: (N, 3, S, S), the hole alone.
    """
    return ((output - image).abs() * border_discount(output.shape[-1], gamma, output)).mean()


def style_and_content(vgg: VGG16, output: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over VGG-16's first three pools of the mean squared differences of Gram matrices, and of features.

    output, image: (N, 3, H, W) in [-1, 1], shown to the VGG as they are, as in the authors' later code.
    """
    features = vgg(output)
    with torch.no_grad():
        targets = vgg(image)
    pairs = [(features[name], targets[name]) for name in VGG_LAYERS]
    style = sum(F.mse_loss(gram(feature), gram(target)) for feature, target in pairs)
    return style, sum(F.mse_loss(feature, target) for feature, target in pairs)
