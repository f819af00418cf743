"""Number formats and algorithms that a GPU may use, as `train` sets them, for the time of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from jobs.training.determinism import deterministic
from jobs.training.portability import check_pinned
from jobs.training.settings import TrainConfig

FREE_CHOICE = "algorithms that the GPU's libraries choose, since train.deterministic is false"


@contextlib.contextmanager
def numerics(config: TrainConfig) -> Iterator[set[str]]:
    """Apply `tf32`, `benchmark` and `deterministic` until the context ends. Nothing else reads PyTorch's defaults.

    Yields a set that receives the names of operations that do not repeat to the bit, as they occur. On a GPU
    without `deterministic` it has `FREE_CHOICE`, as PyTorch then names no operation.
    Raises PortabilityError if the config is `portable` and this process is not.
    """
    if config.portable:
        check_pinned(os.environ)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = config.tf32
    cudnn.benchmark = config.benchmark
    try:
        with deterministic(config.deterministic) as reported:
            if not config.deterministic and torch.cuda.is_available():
                reported.add(FREE_CHOICE)
            yield reported
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
