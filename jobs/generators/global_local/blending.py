"""GLCIC's optional post-processing: match the colours of the filled hole to those around it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

_BORDER = 2  # pixels repeated around the image: OpenCV cannot clone into a hole that touches the border


def blend(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Blend the output's hole into a fast-marching estimate of it (Poisson blending).

    Iizuka et al., SIGGRAPH 2017, post-processing; settings of the authors' code: Telea's method with radius 1, then
    OpenCV's seamless clone, whose gradients are the output's. Images are computed with 8 bits per channel, on the CPU,
    one after another.

    output: (N, 3, H, W) in [-1, 1].
    image: (N, 3, H, W) in [-1, 1]. Pixels under the hole are not read.
    mask: (N, 1, H, W), 1 = hole.
    Returns (N, 3, H, W) in [-1, 1]. The output is unchanged in known pixels, and where a mask is empty or full.
    """
    visible = image * (1 - mask)
    blended = []
    for raw, known, hole in zip(_bytes(output), _bytes(visible), mask[:, 0].cpu().numpy().astype(bool), strict=True):
        blended.append(raw if hole.all() or not hole.any() else _blend(raw, known, hole))
    pixels = torch.from_numpy(np.stack(blended)).permute(0, 3, 1, 2).to(output)
    partial = ((mask.amin((1, 2, 3)) == 0) & (mask.amax((1, 2, 3)) == 1)).view(-1, 1, 1, 1)
    return torch.where((mask == 1) & partial, pixels / 127.5 - 1, output)


def _blend(raw: np.ndarray, known: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Blend one image.

    raw, known: uint8 (H, W, 3).
    hole: bool (H, W).
    Returns uint8 (H, W, 3).
    """
    guess = cv2.inpaint(known, hole.astype(np.uint8), 1, cv2.INPAINT_TELEA)
    source = np.where(hole[..., None], raw, known)
    source, guess = (cv2.copyMakeBorder(a, *[_BORDER] * 4, cv2.BORDER_REPLICATE) for a in (source, guess))
    region = np.pad(hole.astype(np.uint8), _BORDER)
    left, top, width, height = cv2.boundingRect(region)
    centre = (left + width // 2, top + height // 2)
    cloned = cv2.seamlessClone(source, guess, 255 * region, centre, cv2.NORMAL_CLONE)
    return cloned[_BORDER:-_BORDER, _BORDER:-_BORDER]


def _bytes(image: Tensor) -> np.ndarray:
    """Convert (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    pixels = ((image.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
