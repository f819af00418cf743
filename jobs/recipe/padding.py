"""Pad a batch to a size that a network accepts, and crop the result."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from jobs.recipe.batch import Batch


def check_sides(image: Tensor, multiple: int, smallest: int = 1) -> None:
    """Raise UserError unless both sides of an image are multiples of a number, and long enough.

    image: (N, C, H, W).
    multiple: the number, in pixels.
    smallest: shortest side that is accepted, in pixels.
    """
    height, width = image.shape[-2:]
    if height % multiple or width % multiple or min(height, width) < smallest:
        rule = f"multiples of {multiple}" + (f", at least {smallest}" if smallest > 1 else "")
        raise UserError(
            f"H and W must be {rule}, got {height} x {width}; set ingest.size to such a number for training, "
            "or let jobs.generators.build.inpaint pad the batch"
        )


def pad_to_multiple(tensor: Tensor, multiple: int) -> Tensor:
    """Add mirrored rows below and columns on the right until both sides are multiples of a number.

    tensor: (N, C, H, W), any range. A side too short to be mirrored (padding >= side) repeats the border instead.
    multiple: the number, at least 1.
    Returns (N, C, H', W'); the tensor itself if it already fits.
    Raises ValueError for another number of dimensions and for a multiple below 1.
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


def pad_batch(batch: Batch, multiple: int) -> Batch:
    """Pad image, mask, edge and sketch of a batch by the same amounts, and leave out labels.

    batch: the batch to inpaint.
    multiple: the padded sides are multiples of it.
    """
    # The hole is mirrored with the image: otherwise the mirrored hole would count as known pixels.
    maps = {name: getattr(batch, name) for name in ("edge", "sketch")}
    padded = {name: None if tensor is None else pad_to_multiple(tensor, multiple) for name, tensor in maps.items()}
    image, mask = pad_to_multiple(batch.image, multiple), pad_to_multiple(batch.mask, multiple)
    return replace(batch, image=image, mask=mask, semantics=None, **padded)


def crop(tensor: Tensor, height: int, width: int) -> Tensor:
    """Return the top left height x width of a tensor (..., H, W). It undoes `pad_to_multiple`."""
    return tensor[..., :height, :width]
