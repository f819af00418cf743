"""Check that the GPUs which training needs are there."""

from __future__ import annotations

import os

from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import WorkerError


def check_gpus(config: ClusterConfig) -> None:
    """Raise WorkerError for GPUs that cannot come; see `find_missing_gpus`."""
    if problem := find_missing_gpus(config):
        raise WorkerError(problem)


def find_missing_gpus(config: ClusterConfig) -> str | None:
    """Return what is wrong if training needs more GPUs than this machine has; None if it has enough.

    A cluster may still start machines with GPUs, so nothing is wrong where a cluster trains.
    """
    is_elsewhere = config.worker_range[1] > 0 and "RAY_ADDRESS" in os.environ
    if not config.use_gpu or is_elsewhere:
        return None
    import torch  # here, since tasks without training do without it

    needed, found = max(config.worker_range[0], 1), torch.cuda.device_count()
    if found >= needed:
        return None
    few = f"only {found}" if found else "no GPU"
    return (
        f"cluster.use_gpu is true, but torch finds {few} on this machine, and training needs {needed}; set it to "
        "false, lower cluster.train_workers, or join a cluster with RAY_ADDRESS"
    )
