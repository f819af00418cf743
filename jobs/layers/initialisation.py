"""Initial weights of convolutions, for `nn.Module.apply`."""

from __future__ import annotations

from torch import nn


def draw_normal(module: nn.Module) -> None:
    """Draw the weights of a (transposed) convolution from N(0, 0.02), and set its bias to 0.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def draw_glorot(module: nn.Module) -> None:
    """Draw the weights of a convolution or linear layer Glorot uniform, and set its bias to 0, as TensorFlow does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
