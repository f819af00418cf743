"""The loss of DeepFill v2 alone: l1 over the whole image."""

from __future__ import annotations

from torch import Tensor


def l1(prediction: Tensor, image: Tensor) -> Tensor:
    """Average the absolute error over all elements, hole and known alike. Both are (N, 3, H, W) in [-1, 1]."""
    return (prediction - image).abs().mean()
