import pytest
import torch

from datasets.shards import ShardError
from jobs.samples import TrainingSamples
from jobs.settings import SampleConfig
from tests.photographs import write_split


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("shards"), 20, size=32, per_shard=4)


def batches(folders, *, rank=0, world_size=1, num_workers=0, steps=range(8), seed=1):
    samples = TrainingSamples(folders, SampleConfig(), seed)
    loader = samples.loader(steps=steps, batch_size=4, rank=rank, world_size=world_size, num_workers=num_workers)
    return list(loader)


def test_batches_follow_the_conventions(folders):
    for batch in batches(folders):
        assert batch.image.shape == (4, 3, 32, 32)
        assert batch.image.dtype == torch.float32
        assert -1 <= batch.image.min() < batch.image.max() <= 1
        for tensor in (batch.mask, batch.edge):
            assert tensor.shape == (4, 1, 32, 32)
            assert set(tensor.unique().tolist()) <= {0.0, 1.0}
        assert len({m.numpy().tobytes() for m in batch.mask}) == 4  # a mask per sample
        assert batch.semantics.shape == (4, 32, 32)
        assert batch.semantics.dtype == torch.int64
        assert batch.semantics.min() >= 0
        assert batch.semantics.max() < 4
        assert len(batch.seed.unique()) == 4


@pytest.mark.parametrize("num_workers", [1, 2])
def test_loader_workers_change_nothing(folders, num_workers):
    for one, other in zip(batches(folders), batches(folders, num_workers=num_workers), strict=True):
        assert one.key == other.key
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.edge, other.edge)
        assert torch.equal(one.seed, other.seed)


def test_two_ranks_read_what_one_reads(folders):
    ranks = [batches(folders, rank=rank, world_size=2) for rank in range(2)]
    for step, whole in enumerate(batches(folders)):
        assert whole.key == tuple(key for pair in zip(*(r[step].key for r in ranks), strict=True) for key in pair)
        assert torch.equal(whole.mask, torch.stack([r[step].mask for r in ranks], 1).flatten(0, 1))


def test_a_later_start_reads_the_very_next_records(folders):
    whole = batches(folders)
    for step in (1, 4, 7):
        for one, other in zip(whole[step:], batches(folders, steps=range(step, 8)), strict=True):
            assert one.key == other.key
            assert torch.equal(one.image, other.image)


def test_an_epoch_reads_every_record_once_with_new_masks_each_time(folders):
    read = batches(folders, steps=range(10))
    first = {key: mask for batch in read[:5] for key, mask in zip(batch.key, batch.mask, strict=True)}
    second = {key: mask for batch in read[5:] for key, mask in zip(batch.key, batch.mask, strict=True)}
    assert len(first) == len(second) == 20
    assert not any(torch.equal(first[key], second[key]) for key in first)


def test_columns_of_other_images_are_refused(folders, tmp_path):
    other = write_split(tmp_path, 21, size=32)
    with pytest.raises(ShardError, match="was made from images"):
        TrainingSamples({"image": folders["image"], "edge": other["edge"]}, SampleConfig(), 1)
