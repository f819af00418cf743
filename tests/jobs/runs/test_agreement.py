"""Two ranks, here threads, agree on a checkpoint, whatever each sees of the storage."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from files.objects import StoreConfig
from jobs.runs.agreement import Group, agree_on_checkpoint
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoints import take_snapshot, verify_checkpoint, write_checkpoint
from jobs.runs.folder import RunFolder, list_checkpoints

STORE = StoreConfig(url="s3://bucket/live/toy/0123", attempts=2, wait_seconds=0.01)
NAME = "step-00000005"


class Exchange:
    """The exchange of values between threads."""

    def __init__(self, world_size):
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.values = [None] * world_size

    def gather(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        gathered = list(self.values)
        self.barrier.wait()
        return gathered

    def group(self, rank):
        return Group(
            rank=rank,
            world_size=len(self.values),
            broadcast=lambda value: self.gather(rank, value)[0],
            gather=lambda value: self.gather(rank, value),
            wait=self.barrier.wait,
        )


def agree(folders, config):
    """Return the checkpoint of each rank."""
    exchange = Exchange(len(folders))

    def run_rank(rank):
        return agree_on_checkpoint(folders[rank], CheckpointStore(config) if config else None, exchange.group(rank))

    with ThreadPoolExecutor(len(folders)) as threads:
        return list(threads.map(run_rank, range(len(folders))))


def write(folder):
    network = nn.Linear(2, 2)
    return write_checkpoint(folder.checkpoints, take_snapshot(5, {"generator": network}, {}))


@pytest.mark.parametrize("is_seen", [True, False])
@pytest.mark.parametrize(("in_storage", "in_store"), [(True, True), (True, False), (False, True)])
def test_every_rank_finds_the_checkpoint_of_rank_0(s3, tmp_path, in_storage, in_store, is_seen):
    first = RunFolder(tmp_path / "first")
    second = first if is_seen else RunFolder(tmp_path / "second")
    checkpoint = write(first if in_storage else RunFolder(tmp_path / "lost"))
    if in_store:
        CheckpointStore(STORE).put(checkpoint)
    expected = (checkpoint / "state.json").read_bytes()
    chosen = agree([first, second], STORE)
    assert chosen[0] == first.checkpoints / NAME
    assert chosen[1] == (chosen[0] if is_seen else second.fetched_checkpoints / NAME)
    for path in chosen:
        verify_checkpoint(path, NAME)
        assert (path / "state.json").read_bytes() == expected
    assert second is first or not list_checkpoints(second.checkpoints)  # its own storage stays as it was


def test_without_a_store_all_read_the_storage_and_without_a_checkpoint_all_start(tmp_path):
    folder = RunFolder(tmp_path)
    assert agree([folder, folder], None) == [None, None]
    checkpoint = write(folder)
    assert agree([folder, folder], None) == [checkpoint, checkpoint]
