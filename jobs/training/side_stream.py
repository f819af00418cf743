"""Copies of batches to a GPU that run beside the kernels of the step before."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.recipe.batch import Batch
from jobs.training.byte_batches import ByteBatch


class BatchCopier:
    """Copy batches to a device. On a GPU they are copied on a stream of their own.

    The host issues the copy while the kernels of the step before still run, and waits for neither. The kernels of the
    next step wait for the copy, on the GPU. The batches should be in page-locked memory, see `ByteBatch.pin_memory`.

    device: where the batches go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: ByteBatch) -> Batch:
        """Return the batch on the device, converted there."""
        return batch.to(self._device) if self._stream is None else self._copy_beside(batch).to(self._device)

    def _copy_beside(self, batch: ByteBatch) -> ByteBatch:
        kernels = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            copied = batch.map_tensors(lambda tensor: tensor.to(self._device, non_blocking=True))
        kernels.wait_stream(self._stream)

        def keep(tensor: Tensor) -> Tensor:
            tensor.record_stream(kernels)  # or its memory could be used again while the kernels read it
            return tensor

        return copied.map_tensors(keep)
