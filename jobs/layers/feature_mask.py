"""The mask at the size of a feature map: which of its cells count as hole."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def shrink_by_vote(mask: Tensor, times: int = 3, threshold: float = 5 / 16) -> Tensor:
    """Halve the mask `times` times by averages of 4x4 pixels, then call a cell hole if it is above the threshold.

    Yan et al., "Shift-Net", ECCV 2018, in the form of the authors' first code: convolutions with stride 2, padding 1
    and weights 1/16, with one threshold at the end. Beyond the border counts as known. Strokes of a few pixels get too
    few votes and vanish: a hole three pixels wide leaves no cell at 1/8 of the size.
    mask: (N, 1, H, W), 1 = hole; H and W multiples of 2^times. Returns (N, 1, H / 2^times, W / 2^times), 0 or 1.
    """
    for _ in range(times):
        mask = F.avg_pool2d(mask, kernel_size=4, stride=2, padding=1)
    return (mask > threshold).to(mask.dtype)
