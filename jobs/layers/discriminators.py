"""Discriminators that several papers share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from jobs.layers.normalization import InstanceNorm2d


class PatchDiscriminator(nn.Module):
    """Score overlapping patches of 70x70 pixels.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, Sec. 3.2.2: five 4x4
    convolutions with padding 1, strides 2, 2, 2, 1, 1 and LeakyReLU 0.2 between them; no sigmoid.

    in_channels: channels of the input.
    width: channels of the first layer.
    spectral: whether every convolution has a spectral norm.
    norm: whether an affine instance norm follows the second, third and fourth convolution.
    bias: whether every convolution has a bias.
    deviation: weights start from N(0, deviation) and biases from 0; None keeps PyTorch's initial values.

    forward(image):
        image: (N, in_channels, H, W), any range, H and W at least 24.
    Returns logits (N, 1, H/8 - 2, W/8 - 2).
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,
        *,
        spectral: bool = True,
        norm: bool = False,
        bias: bool = True,
        deviation: float | None = 0.02,
    ) -> None:
        super().__init__()
        widths = (in_channels, width, 2 * width, 4 * width, 8 * width, 1)
        self.stages = nn.ModuleList()
        for number, stride in enumerate((2, 2, 2, 1, 1)):
            conv = nn.Conv2d(widths[number], widths[number + 1], 4, stride=stride, padding=1, bias=bias)
            # Draw the weights before the spectral norm, which starts from their largest singular value.
            if deviation is not None:
                nn.init.normal_(conv.weight, std=deviation)
                if bias:
                    nn.init.zeros_(conv.bias)
            stage = nn.Sequential(spectral_norm(conv) if spectral else conv)
            if norm and 0 < number < 4:
                stage.append(InstanceNorm2d(widths[number + 1], affine=True))
            if number < 4:
                stage.append(nn.LeakyReLU(0.2))
            self.stages.append(stage)

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image)[-1]

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of the five stages, the logits last.

        Only `forward` calls it, here and in subclasses: any other call would bypass the distributed wrapper.
        """
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]
