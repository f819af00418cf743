"""Layers as their papers describe them, in a few lines of plain PyTorch, to compare this project's layers with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.layers.attention import ContextualAttention
from jobs.layers.convolution import NarrowConv2d
from jobs.layers.normalization import BatchNorm2d, InstanceNorm2d


def use_plain_layers(network: nn.Module) -> int:
    """Put PyTorch's own layers in the place of this project's, with the same parameters.

    Norms, narrow convolutions and contextual attention are replaced, wherever they are in the network. Gated and
    partial convolutions and other attentions stay.

    Returns the number of replaced layers whose computation differs.
    """
    replaced = 0
    for name, layer in list(network.named_children()):
        if (plain := _plain(layer)) is None:
            replaced += use_plain_layers(layer)
        else:
            setattr(network, name, plain)
            replaced += not isinstance(layer, BatchNorm2d)  # the same kernels in one process
    return replaced


def _plain(layer: nn.Module) -> nn.Module | None:
    plain: nn.Module
    if isinstance(layer, ContextualAttention):
        return _ContextualAttention()
    if isinstance(layer, BatchNorm2d):
        plain = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    elif isinstance(layer, InstanceNorm2d):
        plain = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=layer.affine)
    elif isinstance(layer, NarrowConv2d):
        plain = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding, padding_mode="reflect"
        )
    else:
        return None
    for name, parameter in layer.named_parameters():
        setattr(plain, name, parameter)
    return plain


class _ContextualAttention(nn.Module):
    def forward(self, foreground: Tensor, _: Tensor, mask: Tensor) -> Tensor:
        return contextual_attention(foreground, mask)


def contextual_attention(features: Tensor, mask: Tensor, scale: float = 10.0) -> Tensor:
    """Rebuild features out of their known patches, sample by sample.

    Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, Sec. 4.1: matching is a convolution
    with normalised patches, fusion two convolutions with the identity, pasting a transposed convolution.

    features: (N, C, H, W), foreground and background; H and W even.
    mask: (N, 1, k * H, k * W), 1 = hole.
    Returns (N, C, H, W), equal to `ContextualAttention` but for rounding.
    """
    samples, _, height, width = features.shape
    h, w = height // 2, width // 2
    step = mask.shape[-1] // w
    valid = (F.max_pool2d(mask[..., ::step, ::step], 3, stride=1, padding=1) == 0).float()
    small = features[..., ::2, ::2]
    keys = _patches(small, 3, stride=1)
    patches = _patches(features, 4, stride=2)
    identity = torch.eye(3, device=features.device).view(1, 1, 3, 3)
    pasted = []
    for n in range(samples):
        key = keys[n] / keys[n].square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-4)
        scores = F.conv2d(small[n : n + 1], key, padding=1).view(1, 1, h * w, h * w)
        scores = F.conv2d(scores, identity, padding=1).view(1, h, w, h, w).permute(0, 2, 1, 4, 3)
        scores = F.conv2d(scores.reshape(1, 1, h * w, h * w), identity, padding=1).view(1, w, h, w, h)
        known = valid[n].view(1, h * w, 1, 1)
        shares = (scale * known * scores.permute(0, 2, 1, 4, 3).reshape(1, h * w, h, w)).softmax(1) * known
        pasted.append(F.conv_transpose2d(shares, patches[n], stride=2, padding=1) / 4)
    return torch.cat(pasted)


def _patches(features: Tensor, size: int, stride: int) -> Tensor:
    """Cut out all patches: (N, C, H, W) -> (N, places, C, size, size)."""
    patches = F.unfold(features, size, stride=stride, padding=1).transpose(1, 2)
    return patches.unflatten(2, (features.shape[1], size, size))
