"""Slots of shared memory are used again, and a batch that is still held never changes."""

import multiprocessing
import os
import signal

import pytest
import torch

from benchmarks.photographs import write_split
from datasets.shards.records import ShardError
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig
from jobs.training.shared_memory import LoaderError

STEPS = 30


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return TrainingSamples(write_split(tmp_path_factory.mktemp("shards"), 20, size=32, per_shard=4), SampleConfig(), 1)


def loader(samples, num_workers):
    return samples.loader(steps=range(STEPS), batch_size=4, rank=0, world_size=1, num_workers=num_workers)


@pytest.fixture(scope="module")
def expected(samples):
    return list(loader(samples, 0))


def check(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        assert batch.key == other.key
        assert torch.equal(batch.image, other.image)
        assert torch.equal(batch.mask, other.mask)
        assert torch.equal(batch.maps["edge"], other.maps["edge"])
        assert torch.equal(batch.seed, other.seed)


def in_slots(batches, tensor):
    memory = batches.slots._memory
    return 0 <= tensor.data_ptr() - memory.ctypes.data < memory.size


def test_memory_is_used_again_when_a_batch_is_gone(samples, expected):
    batches = iter(loader(samples, 1))
    places = set()
    for other in expected:
        batch = next(batches)
        check([batch], [other])
        assert in_slots(batches, batch.image)
        assert in_slots(batches, batch.mask)
        places.add(batch.image.data_ptr())
    assert len(places) <= 5  # two read ahead, one in the making, the last one and this one


def test_what_is_held_of_a_batch_does_not_change(samples, expected):
    batches = iter(loader(samples, 1))
    held = [(batch.image[1:2], batch.mask.numpy(), batch.maps["edge"][0]) for batch in batches]
    assert {in_slots(batches, image) for image, _, _ in held} == {
        True,
        False,
    }  # once all slots are used, torch's own way
    for (image, mask, edge), other in zip(held, expected, strict=True):
        assert torch.equal(image, other.image[1:2])
        assert (mask == other.mask.numpy()).all()
        assert torch.equal(edge, other.maps["edge"][0])


def test_two_passes_of_one_loader_do_not_share_memory(samples, expected):
    both = loader(samples, 1)
    held = list(both)
    for batch, other in zip(both, expected, strict=True):
        check([batch], [other])
    check(held, expected)


def test_a_forked_process_gives_back_nothing_that_this_one_holds(samples, expected):
    batches = iter(loader(samples, 1))
    held = [next(batches)]
    child = os.fork()
    if not child:
        place = in_slots(batches, held.pop().image)
        os._exit(0 if place and not held else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for batch in batches:
        assert batch.key
    check(held, expected[:1])


def test_an_error_of_a_worker_is_raised_as_it_was_there(tmp_path):
    folders = write_split(tmp_path, 20, size=32, per_shard=4)
    samples = TrainingSamples(folders, SampleConfig(), 1)
    tar = next(path for path in folders["image"].iterdir() if path.suffix == ".tar")
    content = bytearray(tar.read_bytes())
    content[600:700] = bytes(100)
    tar.write_bytes(content)
    with pytest.raises(ShardError, match=f"{tar.name}.* has digest") as error:
        list(loader(samples, 2))
    assert len(str(error.value).splitlines()) == 1


def test_a_worker_that_is_killed_is_named_in_one_line(samples):
    others = set(multiprocessing.active_children())
    batches = iter(loader(samples, 1))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"worker \(pid.*; if memory is short, lower") as error:
        list(batches)
    assert len(str(error.value).splitlines()) == 1
