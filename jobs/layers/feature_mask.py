"""Reduce the mask to the size of a feature map."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def shrink_by_vote(mask: Tensor, times: int = 3, threshold: float = 5 / 16) -> Tensor:
    """Halve the mask several times by averages of 4x4 pixels, then mark the cells above the threshold as hole.

    Yan et al., "Shift-Net", ECCV 2018, in the form of the authors' first code: convolutions with stride 2, padding 1
    and weights 1/16, with one threshold at the end. Pixels beyond the border count as known. Strokes of a few pixels
    vanish: a hole three pixels wide leaves no cell at 1/8 of the size.

    mask: (N, 1, H, W), 1 = hole; H and W multiples of 2^times.
    times: number of halvings.
    threshold: share of hole in (0, 1) above which a cell is hole.
    Returns (N, 1, H / 2^times, W / 2^times), 0 or 1.
    """
    for _ in range(times):
        mask = F.avg_pool2d(mask, kernel_size=4, stride=2, padding=1)
    return (mask > threshold).to(mask.dtype)
