"""Layers as their papers describe them, in a few lines of plain PyTorch, to compare this project's layers with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
