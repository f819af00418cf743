import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks.photographs import photograph, write_column, write_split
from datasets.shards.column import Column
from datasets.shards.records import ShardError
from datasets.writing.tars import NewRecord
from files.errors import UserError
from files.pictures import encode_grey_png, encode_png
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig
from masks.config import MaskConfig
from masks.hole_ratio import BINS, bin_name, hole_ratio

PLAIN = SampleConfig()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("shards"), 20, size=32, per_shard=4)


def batches(folders, *, rank=0, world_size=1, num_workers=0, steps=range(8), seed=1, batch_size=4, config=PLAIN):
    samples = TrainingSamples(folders, config, seed)
    loader = samples.loader(
        steps=steps, batch_size=batch_size, rank=rank, world_size=world_size, num_workers=num_workers
    )
    return [batch.to("cpu") for batch in loader]


def test_batches_follow_the_conventions(folders):
    for batch in batches(folders):
        assert batch.image.shape == (4, 3, 32, 32)
        assert batch.image.dtype == torch.float32
        assert batch.image.is_contiguous()  # in channels-last order, convolutions round differently
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


@pytest.mark.parametrize("crop", [None, 24])
def test_a_batch_is_what_its_samples_are_one_by_one(folders, crop):
    samples = TrainingSamples(folders, SampleConfig(crop=crop), 1)
    for start in (0, 8):
        positions = range(start, start + 8)
        batch, single = samples.__getitems__(positions), [samples[position] for position in positions]
        assert batch.key == tuple(sample.key for sample in single)
        for place, sample in enumerate(single):
            assert (batch.image[place].numpy() == sample.image).all()
            assert (batch.mask[place].numpy() == sample.mask).all()
            for name, array in sample.maps.items():
                assert (batch.maps[name][place].numpy() == array).all()
        if crop is None:
            stored = [arrays["image"] for _, arrays in samples.decode(positions)[1]]
            flipped = sum((one.image != image).any() for one, image in zip(single, stored, strict=True))
            assert 0 < flipped < 8  # flipped images are copied, the others stay where they were decoded


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


def test_hole_ratios_are_those_of_the_kind_or_of_the_published_bins_in_equal_shares(folders):
    def shares(hole_ratios):
        read = batches(folders, steps=range(75), config=SampleConfig(hole_ratios=hole_ratios))
        found = Counter(bin_name(hole_ratio(mask[0].numpy())) for batch in read for mask in batch.mask)
        return {name: found[name] / 300 for name, _, _ in BINS}

    assert shares("kind")["0.01-0.1"] == 0  # the box of a whole mask is larger
    assert all(1 / 6 - 0.07 < share < 1 / 6 + 0.07 for share in shares("bins").values())  # three deviations


def test_masks_that_have_no_bins_are_refused_with_the_remedy(folders):
    centre = SampleConfig(hole_ratios="bins", masks=MaskConfig(kind="centre"))
    with pytest.raises(UserError, match=r"no mask of .*centre.*; or set train\.samples\.hole_ratios to kind"):
        batches(folders, config=centre)


def test_columns_of_other_images_are_refused(folders, tmp_path):
    other = write_split(tmp_path, 21, size=32)
    with pytest.raises(ShardError, match="was made from images"):
        TrainingSamples({"image": folders["image"], "edge": other["edge"]}, SampleConfig(), 1)


def test_unequal_shards_feed_two_ranks_of_two_workers_equally(tmp_path):
    # 18 records in shards of 10, 7 and 1: 9 steps of 2 are one epoch, whatever shard a record lies in.
    pictures = [NewRecord(key=f"{n:02d}", members={"png": encode_png(photograph(n, 16))}, about={}) for n in range(18)]
    write_column(tmp_path, "image", pictures, per_shard=[10, 7, 1])
    assert Column(tmp_path).shard_sizes == [10, 7, 1]
    ranks = [
        batches({"image": tmp_path}, rank=rank, world_size=2, num_workers=2, steps=range(18), batch_size=2)
        for rank in range(2)
    ]
    assert [len(rank) for rank in ranks] == [18, 18]
    for epoch in (range(9), range(9, 18)):
        seen = Counter(key for rank in ranks for step in epoch for key in rank[step].key)
        assert seen == {f"{n:02d}": 1 for n in range(18)}


def lacking_one(folders, tmp_path, change):
    """Return the folders of the same images and of edges whose records `change` has replaced."""
    images, edges = Column(folders["image"]), Column(folders["edge"])
    members = [NewRecord(key=edges.key(n), members={"png": edges.read(n)}, about={}) for n in range(20)]
    write_column(tmp_path, "edge", change(members), per_shard=4, made_from=images.manifest.digest)
    return {"image": folders["image"], "edge": tmp_path}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:9] + s[10:], "made/0009 is in one of them only"),
        (lambda s: [*s[:9], dataclasses.replace(s[9], key="made/zz"), *s[10:]], "made/0009 is in one of them only"),
        (lambda s: [*s[:8], s[9], s[8], *s[10:]], "the order differs"),
        (
            lambda s: [*s[:9], dataclasses.replace(s[9], members={"jpg": s[9].members["png"]}), *s[10:]],
            "record made/0009 has members jpg where others have png",
        ),
    ],
)
def test_training_refuses_columns_that_lack_a_member(folders, tmp_path, change, message):
    with pytest.raises(ShardError, match=message):
        TrainingSamples(lacking_one(folders, tmp_path, change), SampleConfig(), 1)


def write_uneven(root, sizes):
    pictures = {f"{n}": photograph(n, 96)[: size[0], : size[1]] for n, size in enumerate(sizes)}
    images = write_column(
        root / "image",
        "image",
        [NewRecord(key=k, members={"png": encode_png(p)}, about={}) for k, p in pictures.items()],
    )
    labels = [NewRecord(key=k, members={"png": encode_grey_png(p[..., 0])}, about={}) for k, p in pictures.items()]
    write_column(root / "semantics", "semantics", labels, made_from=images.manifest.digest, parameters={"mirrored": []})
    return {name: root / name for name in ("image", "semantics")}, pictures


def test_a_random_crop_is_the_same_from_image_and_maps(tmp_path):
    folders, pictures = write_uneven(tmp_path, [(48, 64), (96, 40), (50, 50), (33, 95)])
    config = SampleConfig(crop=32)
    places = set()
    for batch in batches(folders, config=config, steps=range(20)):
        assert batch.image.shape == (4, 3, 32, 32)
        bytes_of = ((batch.image + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(bytes_of[..., 0], batch.semantics.numpy())
        for key, image in zip(batch.key, bytes_of, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(pictures[key], (32, 32), axis=(0, 1))
            windows = windows.transpose(0, 1, 3, 4, 2)
            matches = [np.argwhere((windows == side).all((2, 3, 4))) for side in (image, image[:, ::-1])]
            assert sum(map(len, matches)) == 1  # it is a window of its own picture, or of its mirror image
            places.add((key, *np.concatenate(matches)[0]))
    assert len(places) > 60  # of 80
    for one, other in zip(batches(folders, config=config), batches(folders, config=config, num_workers=2), strict=True):
        assert torch.equal(one.image, other.image)


def test_a_map_of_another_size_than_its_image_is_refused(folders, tmp_path):
    columns = lacking_one(folders, tmp_path, lambda s: [replace_map(s[0]), *s[1:]])
    with pytest.raises(ValueError, match="made/0000: edge is 16 x 32, its image 32 x 32"):
        batches(columns, steps=range(5))


def replace_map(sample):
    return dataclasses.replace(sample, members={"png": encode_grey_png(np.zeros((32, 16), np.uint8))})


def test_records_of_unequal_size_are_refused_without_a_crop_or_below_it(tmp_path):
    folders, _ = write_uneven(tmp_path, [(48, 64), (96, 40), (50, 50), (33, 95)])
    with pytest.raises(ValueError, match=r"one batch needs one size; set train\.samples\.crop"):
        batches(folders)
    with pytest.raises(ValueError, match=r"0 is 64 x 48|1 is 40 x 96|3 is 95 x 33"):
        batches(folders, config=SampleConfig(crop=41))
