"""Where the work is done, and by how many processes. Imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from files.objects import WRITABLE_SCHEMES, parse_address


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where and by how many processes the work is done. Only `train_workers` and `threads` can change a result, by
    rounding.

    num_workers: tasks at once in ingest, precompute and evaluate; 0 = in this process, without Ray; -1 = as many as
        this machine, or the cluster, has cores.
    train_workers: training processes, which share each batch; 0 = in this process, without Ray; [min, max] = at every
        start as many as the cluster has room for and the batch can be shared by, but not fewer than min.
    threads: CPU threads of each training process.
    loader_workers: processes that read and decode for each training process; 0 = it does so itself.
    prefetch_batches: how many batches each of them is ahead.
    use_gpu: whether each training process has a GPU; otherwise it has a CPU core.
    max_failures: restarts of a training after a failure, before it stops with the first cause.
    collective_seconds: how long training processes wait for one another before they name the one that does not answer.
    storage: folder of live checkpoints and logs, which every node sees; see `storage_folder`.
    checkpoints: s3://bucket/prefix or gs://bucket/prefix that live checkpoints are copied to, in the background, and
        fetched from where `storage` lacks them; null = nowhere. See `StoreConfig.url`.
    start_anew: train though another experiment of the same generator waits there unfinished.
    """

    num_workers: int = 2
    train_workers: int | tuple[int, int] = 2
    threads: int = 1
    loader_workers: int = 0
    prefetch_batches: int = 2
    use_gpu: bool = False
    max_failures: int = 3
    collective_seconds: float = 600.0
    storage: str = "runs"
    checkpoints: str | None = None
    start_anew: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < -1:
            raise ValueError(f"num_workers must be -1 or more, got {self.num_workers}")
        fewest, most = self.worker_range
        if not (0 <= fewest <= most and (fewest or not most)):
            raise ValueError(f"train_workers must be a number or [min, max], 1 <= min <= max, got {self.train_workers}")
        if self.checkpoints is not None:
            parse_address(self.checkpoints, "checkpoints", WRITABLE_SCHEMES)

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most training processes."""
        return (self.train_workers,) * 2 if isinstance(self.train_workers, int) else self.train_workers

    @property
    def storage_folder(self) -> Path:
        """`storage`, absolute; below the working directory, or below the checkout whose experiment DVC runs."""
        return Path(os.environ.get("DVC_ROOT", ""), self.storage).resolve()
