"""Shift-Net's own losses: guidance, and the later additions of its authors. All are unweighted scalars."""

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
    """Compute L_g: compare the decoder's features in the hole with the encoder's features of the true image there.

    Yan et al., ECCV 2018, guidance loss: |D_y - E_y(truth)|^2 at hole cells y. The mean is over all elements of the
    maps, hole or not, as in the authors' first code.
    decoded: D, (N, C, h, w), any range.
    target: E(truth), (N, C, h, w); it gets no gradient.
    hole: (N, 1, h, w), 0 or 1.
    Returns a scalar in float32 at least.
    """
    dtype = wide_dtype(decoded)
    return ((decoded.to(dtype) - target.detach().to(dtype)) * hole).square().mean()


def crop_hole(tensor: Tensor, mask: Tensor, size: int) -> Tensor:
    """Cut the square that begins at the topmost row and the leftmost column of each sample's hole.

    tensor: (N, C, H, W).
    mask: (N, 1, H, W), 1 = hole.
    size: side of the square in pixels.
    Returns (N, C, size, size). The square is moved inside the image; for an empty mask it is the top left corner.
    Raises UserError if the image is smaller.
    """
    height, width = tensor.shape[-2:]
    if min(height, width) < size:
        raise UserError(f"hole_size is {size}, but the image has {height} x {width} pixels; lower hole_size")
    # The argmax of zeros and ones is the place of the first one.
    rows = mask.amax(dim=3).squeeze(1).argmax(dim=1, keepdim=True).clamp_max(height - size)
    columns = mask.amax(dim=2).squeeze(1).argmax(dim=1, keepdim=True).clamp_max(width - size)
    return crop_windows(tensor, torch.cat((rows, columns), dim=1), size)


def discounted_l1(output: Tensor, image: Tensor, gamma: float = 0.9) -> Tensor:
    """Compute the mean of |output - image| * w over a square hole; the weight w falls from the border to the middle.

    w(i, j) = max(gamma^min(i, S - i), gamma^min(j, S - j)), rows and columns counted from 0, as in the authors' later
    code: the last row has distance 1 from the border, the first has 0.
    output, image: the hole alone, (N, 3, S, S).
    gamma: in (0, 1].
    """
    return ((output - image).abs() * border_discount(output.shape[-1], gamma, output)).mean()


def style_and_content(vgg: VGG16, output: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the style and the content loss in VGG-16.

    They are sums over its first three pools of the mean squared differences of Gram matrices, and of features.
    vgg: with the layers `VGG_LAYERS`.
    output, image: (N, 3, H, W) in [-1, 1]; VGG-16 sees this range, as in the authors' later code.
    """
    features = vgg(output)
    with torch.no_grad():
        targets = vgg(image)
    pairs = [(features[name], targets[name]) for name in VGG_LAYERS]
    style = sum(F.mse_loss(gram(feature), gram(target)) for feature, target in pairs)
    return style, sum(F.mse_loss(feature, target) for feature, target in pairs)
