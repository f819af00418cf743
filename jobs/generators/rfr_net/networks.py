"""RFR-Net's generator: partial convolutions, the shared reasoning module, and the merge of feature groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.rfr_net.attention import KnowledgeConsistentAttention
from jobs.layers.normalization import BatchNorm2d
from jobs.layers.partial_convolution import PartialConv2d, PartialStage
from jobs.recipe.padding import check_sides

MULTIPLE = 16


class Generator(nn.Module):
    """Fill the feature map at half size ring by ring, merge the results, and decode an image.

    Li et al., CVPR 2020, Sec. 3; layers of the authors' code. `valid` is a mask with 1 = known.

    width: channels at half size.
    recurrences: how often the shared layers run.
    kernel_size: of the partial convolutions at half size.

    forward(image, mask):
        image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
        mask: (N, 1, H, W), exactly 0 or 1, 1 = hole.
    Returns the output, (N, 3, H, W), around [-1, 1] but not limited to it, and the mask of pixels that no recurrence
    reached, (N, 1, H, W), 1 = not reached.
    Raises UserError if H or W is no multiple of 16.
    """

    def __init__(self, *, width: int, recurrences: int, kernel_size: int) -> None:
        super().__init__()
        c, half = width, width // 2
        self.recurrences = recurrences
        self.shrink = _partial((3,), c, 7, nn.ReLU(), stride=2)
        self.enter = _partial((c,), c, kernel_size, nn.ReLU())
        self.enlarge = nn.ModuleList(
            (_partial((c,), c, kernel_size, None, norm=False), _partial((c,), c, kernel_size, nn.LeakyReLU(0.01)))
        )
        self.reason = ReasoningModule(c)
        self.upsample = _up(c, c, 0.01)
        self.paint = _partial((3, c), half, 3, nn.LeakyReLU(0.01), norm=False)
        self.polish = Bottleneck(half)
        self.last = nn.Conv2d(2 * half, 3, 3, padding=1, bias=False)

    @property
    def norms(self) -> tuple[str, ...]:
        """Return the dotted names of all batch norms."""
        return tuple(name for name, module in self.named_modules() if isinstance(module, BatchNorm2d))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        check_sides(image, MULTIPLE)
        known = (image + 1) / 2 * (1 - mask)
        merged, valid = self._reason_recurrently(known, 1 - mask)
        doubled = F.interpolate(valid, scale_factor=2, mode="nearest")
        painted, _ = self.paint((known, 1 - mask), (self.upsample(merged), doubled))
        unit = self.last(torch.cat((painted, self.polish(painted)), dim=1)).to(image.dtype)
        return 2 * unit - 1, 1 - doubled

    def _reason_recurrently(self, known: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the merged features and the last mask, both at half size.

        known: image in [0, 1], 0 in the hole, (N, 3, H, W).
        valid: (N, 1, H, W).
        """
        features, valid = self.enter(self.shrink((known, valid)))
        total, count = features * valid, valid
        scores = None
        for _ in range(self.recurrences):
            filled = valid
            for stage in self.enlarge:
                features, valid = stage((features, valid))
            features, scores = self.reason(features, filled, scores)
            features = features * valid
            total, count = total + features, count + valid
        return total / count.clamp_min(1), valid


class ReasoningModule(nn.Module):
    """Fill a feature map by an encoder, dilated layers, a decoder with skips, and attention at a quarter of the size.

    Li et al., CVPR 2020, Sec. 3.2; layers of the authors' code.

    width: channels of the map.

    forward(features, filled, scores):
        features: (N, width, H, W), any range, H and W multiples of 8.
        filled: mask of the recurrence before, (N, 1, H, W), 1 = known then.
        scores: attention scores of the recurrence before; None in the first.
    Returns features of the same shape and attention scores (N, H W / 16, H W / 16).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        c, deep = width, 8 * width
        self.encoder = nn.ModuleList(
            (_down(c, 2 * c), _down(2 * c, 4 * c), _down(4 * c, deep), *(_dilated(deep, deep, 0) for _ in range(3)))
        )
        self.middle = nn.ModuleList(_dilated(2 * deep, deep, 0.2) for _ in range(2))
        self.decoder = nn.ModuleList(
            (_up(2 * deep, deep, 0.2), _up(deep + 4 * c, 4 * c, 0.2), _up(4 * c + 2 * c, c, 0.2))
        )
        self.attention = KnowledgeConsistentAttention(deep)

    def forward(self, features: Tensor, filled: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor]:
        encoded = []
        for stage in self.encoder:
            features = stage(features)
            encoded.append(features)
        encoded.pop()
        for stage in self.middle:
            features = stage(torch.cat((features, encoded.pop()), dim=1))
        features = self.decoder[0](torch.cat((features, encoded.pop()), dim=1))
        filled = F.interpolate(filled, features.shape[-2:], mode="nearest")
        features, scores = self.attention(features, filled, scores)
        for stage in self.decoder[1:]:
            features = stage(torch.cat((features, encoded.pop()), dim=1))
        return features, scores


class Bottleneck(nn.Module):
    """Compute ReLU(x + norm(conv1x1(...))) through a quarter of the channels.

    He et al., "Deep Residual Learning for Image Recognition", 2016, Fig. 5, right.

    channels: of input and output.

    forward(features):
        features: (N, channels, H, W), any range.
    Returns the same shape, at least 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 4, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False), BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False), BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.layers(features))


def _partial(
    inputs: tuple[int, ...],
    outputs: int,
    kernel_size: int,
    activation: nn.Module | None,
    *,
    stride: int = 1,
    norm: bool = True,
) -> PartialStage:
    conv = PartialConv2d(inputs, outputs, kernel_size, stride=stride)
    conv.reset_parameters()  # PyTorch's initial weights, as in the authors' code
    return PartialStage(conv, activation, norm=norm)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, BatchNorm2d(outputs), nn.ReLU())


def _dilated(inputs: int, outputs: int, slope: float) -> nn.Sequential:
    """Return a dilated convolution with batch norm and leaky ReLU. slope: of negative values."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=2, dilation=2, bias=False)
    return nn.Sequential(conv, BatchNorm2d(outputs), nn.LeakyReLU(slope))


def _up(inputs: int, outputs: int, slope: float) -> nn.Sequential:
    """Return a doubling transposed convolution with batch norm and leaky ReLU. slope: of negative values."""
    conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, BatchNorm2d(outputs), nn.LeakyReLU(slope))
