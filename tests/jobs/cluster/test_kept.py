"""A function that is expensive to make is made once per worker, and remade where its process was lost."""

import dataclasses
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from jobs.cluster import kept
from jobs.cluster.kept import map_kept
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import WorkerError, count_cores

ITEMS = range(8)


@dataclasses.dataclass(frozen=True)
class Square:
    """Squares, and says which process made it, with how many cores and which GPU."""

    folder: Path
    cores: int

    def __call__(self, item):
        time.sleep(0.02)  # so that every process gets one
        if item == 3 and not (self.folder / "lost").exists():
            (self.folder / "lost").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item, os.getpid(), self.cores, os.environ.get("CUDA_VISIBLE_DEVICES")


def open_square(folder, cores):
    (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return Square(folder, cores)


def spread(folder, num_workers, use_gpu=False):
    """The answers, and the number of times that the function was made."""
    config = ClusterConfig(num_workers=num_workers)
    answers = list(map_kept(partial(open_square, folder), list(ITEMS), config, use_gpu=use_gpu))
    assert sorted(square for square, *_ in answers) == [item * item for item in ITEMS]
    return answers, len([path for path in folder.iterdir() if path.name != "lost"])


def test_this_process_makes_it_once_and_forgets_it(tmp_path):
    (tmp_path / "lost").touch()
    for expected in (1, 2):
        answers, num_made = spread(tmp_path, 0)
        assert {process for _, process, *_ in answers} == {os.getpid()}
        assert num_made == expected
        assert kept._kept == {}


def test_each_process_makes_it_once_and_a_lost_one_is_replaced(tmp_path):
    _, num_made = spread(tmp_path, 2)
    assert (tmp_path / "lost").exists()
    assert num_made == 3


def test_each_process_gets_a_gpu_and_its_share_of_the_cores(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    answers, _ = spread(tmp_path, "auto", use_gpu=True)
    assert (tmp_path / "lost").exists()  # its successor has its GPU
    assert {gpu for *_, gpu in answers} == {"4", "7"}
    assert {cores for *_, cores, _ in answers} == {max(1, count_cores() // 2)}
    assert {process for _, process, *_ in spread(tmp_path, 0, use_gpu=True)[0]} == {os.getpid()}


def test_without_a_gpu_there_is_no_evaluation_on_gpus(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(WorkerError, match=r"cluster\.use_gpu is true, but torch finds no GPU"):
        spread(tmp_path, 2, use_gpu=True)


@pytest.mark.slow
def test_actors_of_a_cluster_make_it_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    answers, num_made = spread(tmp_path, 2)
    assert (tmp_path / "lost").exists()
    assert os.getpid() not in {process for _, process, *_ in answers}
    assert num_made in (2, 3)
    with pytest.raises(WorkerError, match="the cluster has no GPU"):
        spread(tmp_path, 2, use_gpu=True)
