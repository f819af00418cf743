"""Configuration of the machines and processes that do the work. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from files.objects import WRITABLE_SCHEMES, parse_address


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Machines and processes that do the work.

    Only `train_workers` and `threads` can change a result, by rounding.

    num_workers: tasks at once in ingest, precompute, evaluate and audit; 0 = one, in this process; -1 = one per core;
        "auto" = in this process at first, then one per core if that is faster. With RAY_ADDRESS, they run on that Ray
        cluster, and cores are those of the cluster.
    train_workers: training processes, which share each batch; 0 = one, this process; [min, max] = at every start as
        many as there is room for, but at least min. A generator is trained by the largest number up to this that
        divides its batch. With RAY_ADDRESS, they run on that Ray cluster.
    generator_workers: name of a generator -> its number, in place of train_workers.
    threads: CPU threads of each training process.
    loader_workers: processes that read and decode for each training process; 0 = it reads itself.
    prefetch_batches: how many batches each loader worker reads ahead.
    use_gpu: whether each training process gets a GPU.
    max_failures: how often a training is restarted after a failure before it ends with the first cause.
    collective_seconds: how long training processes wait for one another before they name the one that does not answer.
    storage: folder of live checkpoints and logs, which every node sees; see `storage_folder`.
    checkpoints: s3://bucket/prefix or gs://bucket/prefix to which live checkpoints are copied in the background, and
        from which they are fetched if `storage` lacks them; null = nowhere. See `StoreConfig.url`.
    start_anew: train although another experiment of the same generator is unfinished in the storage.
    """

    num_workers: int | Literal["auto"] = "auto"
    train_workers: int | tuple[int, int] = 2
    generator_workers: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)
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
        if self.num_workers != "auto" and self.num_workers < -1:
            raise ValueError(f'num_workers must be "auto", -1 or more, got {self.num_workers}')
        numbers = {f"generator_workers.{name}": number for name, number in self.generator_workers.items()}
        for name, number in {"train_workers": self.train_workers, **numbers}.items():
            fewest, most = _range(number)
            if not (0 <= fewest <= most and (fewest or not most)):
                raise ValueError(f"{name} must be a number or [min, max], 1 <= min <= max, got {number}")
        if self.checkpoints is not None:
            parse_address(self.checkpoints, "checkpoints", WRITABLE_SCHEMES)

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most processes that train; (0, 0) trains in this process."""
        return _range(self.train_workers)

    def range_of(self, generator: str) -> tuple[int, int]:
        """Fewest and most processes that are asked for to train one generator."""
        return _range(self.generator_workers.get(generator, self.train_workers))

    @property
    def cpus_per_worker(self) -> int:
        """CPUs that a training process asks a cluster for: its threads and the processes that read for it."""
        return self.threads + self.loader_workers

    @property
    def max_processes(self) -> int:
        """Most training processes at once, this process included if it trains itself."""
        return max(self.worker_range[1], 1)

    @property
    def storage_folder(self) -> Path:
        """`storage`, absolute: relative to the checkout whose experiment DVC runs, or else to the working directory."""
        return Path(os.environ.get("DVC_ROOT", ""), self.storage).resolve()


def _range(number: int | tuple[int, int]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else number
