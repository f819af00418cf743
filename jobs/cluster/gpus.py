"""Show GPUs to the processes that are given them, and check that those which training needs are there."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from pathlib import Path

from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import WorkerError

NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}
"""Variables of a process that sees no GPU, which must be set before CUDA is used in it."""
_REMEDY = "set cluster.use_gpu to false, lower cluster.train_workers, or join a cluster with RAY_ADDRESS"


def hide_gpus(config: ClusterConfig) -> None:
    """Let this process, and those that it starts, see no GPU if training does without."""
    if not config.use_gpu:
        os.environ.update(NO_GPUS)


def check_driver(config: ClusterConfig) -> None:
    """Raise WorkerError if this machine would train on GPUs and has no driver, or one that is too old for PyTorch.

    It takes no time, as PyTorch is not imported.
    """
    if not _trains_here(config):
        return
    needed = _cuda_of_torch()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        problem = "cluster.use_gpu is true, but this machine has no NVIDIA driver (libcuda.so.1)"
    else:
        found = ctypes.c_int(0)
        driver.cuDriverGetVersion(ctypes.byref(found))
        major, minor = found.value // 1000, found.value % 1000 // 10
        if major >= needed[0]:
            return
        problem = (
            f"cluster.use_gpu is true, but the NVIDIA driver is for CUDA {major}.{minor}, and PyTorch needs one for "
            f"{needed[0]}.0 or newer"
        )
    raise WorkerError(f"{problem}; install a driver, or {_REMEDY}")


def check_gpus(config: ClusterConfig) -> None:
    """Raise WorkerError for GPUs that cannot come; see `find_missing_gpus`."""
    if problem := find_missing_gpus(config):
        raise WorkerError(problem)


def find_missing_gpus(config: ClusterConfig) -> str | None:
    """Return what is wrong if training needs more GPUs than this machine has; None if it has enough.

    A cluster may still start machines with GPUs, so nothing is wrong where a cluster trains.
    """
    if not _trains_here(config):
        return None
    import torch  # here, since tasks without training do without it

    needed, found = max(config.worker_range[0], 1), torch.cuda.device_count()
    if found >= needed:
        return None
    few = f"only {found}" if found else "no GPU"
    return f"cluster.use_gpu is true, but torch finds {few} on this machine, and training needs {needed}; {_REMEDY}"


def _trains_here(config: ClusterConfig) -> bool:
    """Return whether this machine trains on GPUs of its own."""
    is_elsewhere = config.worker_range[1] > 0 and "RAY_ADDRESS" in os.environ
    return config.use_gpu and not is_elsewhere


def _cuda_of_torch() -> tuple[int, int]:
    """Return the version of CUDA that PyTorch was built for; (0, 0) if for none."""
    folder = Path(importlib.util.find_spec("torch").origin).parent
    version = re.search(r"^cuda\b.*= '(\d+)\.(\d+)'", (folder / "version.py").read_text(), re.MULTILINE)
    return (int(version[1]), int(version[2])) if version else (0, 0)
