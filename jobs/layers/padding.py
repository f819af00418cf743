"""Growing a batch to a size that a network accepts, and back: inpainting takes any H and W."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(tensor: Tensor, multiple: int) -> Tensor:
    """The tensor with rows added below and columns added on the right, mirrored, until both sides are multiples.

    tensor: (N, C, H, W), any range. Images, masks and edges alike: a mask that was not mirrored with its image would
    call the mirrored hole known. Where a side is too short to be mirrored (padding >= side), the border is repeated
    instead. Already fitting tensors are returned as they are.
    Raises ValueError if the tensor has not four dimensions or if multiple is less than 1.
    """
    if tensor.ndim != 4:
        raise ValueError(f"tensor must be (N, C, H, W), got {tuple(tensor.shape)}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    height, width = tensor.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return tensor
    can_mirror = below < height and right < width
    return F.pad(tensor, (0, right, 0, below), mode="reflect" if can_mirror else "replicate")


def crop(tensor: Tensor, height: int, width: int) -> Tensor:
    """The top left height x width of the tensor (..., H, W): undoes `pad_to_multiple`."""
    return tensor[..., :height, :width]
