import hashlib
import tarfile
import weakref
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import webdataset

from benchmarks.photographs import photograph, samples, write_column
from datasets.shards.column import Column
from datasets.shards.manifest import write_manifest
from datasets.shards.records import ShardError, write_table
from datasets.shards.whole_shard import read_shard
from datasets.writing.tars import NewRecord, even_sizes, write_shard


def test_equal_samples_give_equal_tars(tmp_path):
    first, _ = write_shard(tmp_path / "a", "image", 0, samples())
    second, _ = write_shard(tmp_path / "b", "image", 0, samples())
    assert first == second
    assert hashlib.sha256((tmp_path / "a" / first.name).read_bytes()).hexdigest() == first.sha256


def test_a_plain_webdataset_reader_opens_the_tars(tmp_path):
    write_column(tmp_path, "image", samples(), per_shard=8)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in read] == [f"a/{n:03d}" for n in range(20)]
    assert all(np.array_equal(sample["png"], photograph(n, 16)) for n, sample in enumerate(read))


def test_a_whole_shard_reads_back_as_it_was_written(tmp_path):
    shard, _ = write_shard(tmp_path, "image", 0, samples())
    assert list(read_shard(tmp_path, shard)) == [(sample.key, sample.members) for sample in samples()]


def test_a_changed_or_missing_shard_is_not_read(tmp_path):
    shard, _ = write_shard(tmp_path, "image", 0, samples())
    path = tmp_path / shard.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ShardError, match=rf"has digest \w+, its manifest says {shard.sha256}; run: dvc repro"):
        next(read_shard(tmp_path, shard))
    path.unlink()
    with pytest.raises(ShardError, match="is missing; run: dvc repro"):
        next(read_shard(tmp_path, shard))


def test_one_key_twice_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ShardError, match=r"image-000000\.tar: two records have the key a/000"):
        write_shard(tmp_path, "image", 0, [*samples(3), samples(1)[0]])
    assert not list(tmp_path.iterdir())


def test_records_are_written_one_by_one(tmp_path):
    """At most two records are in memory at a time, however many there are."""
    made, alive = [], []

    def stream():
        for n in range(20):
            sample = NewRecord(key=f"{n}", members={"bin": bytes(10)}, about={})
            made.append(weakref.ref(sample))
            alive.append(sum(each() is not None for each in made))
            yield sample
            del sample

    write_shard(tmp_path, "image", 0, stream())
    assert len(made) == 20
    assert max(alive) <= 2


def test_times_owner_and_mode_in_the_tar_are_fixed(tmp_path):
    shard, _ = write_shard(tmp_path, "image", 0, samples(2))
    with tarfile.open(tmp_path / shard.name) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_shards_differ_by_at_most_one_record():
    for records in range(1, 60):
        sizes = even_sizes(records, 7)
        assert sum(sizes) == records
        assert max(sizes) <= 7
        assert max(sizes) - min(sizes) <= 1
    sizes = even_sizes(1_803_460, 1762)  # Places2 standard: 1,024 shards
    assert (len(sizes), sizes.count(1762), sizes.count(1761)) == (1024, 196, 828)


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", -1), ("offset", 2**62), ("length", 2**62), ("length", -5), ("shard", 1), ("shard", 9)],
)
def test_a_table_with_places_outside_its_shards_is_refused_before_anything_is_read(tmp_path, column, value):
    """The manifest has the digest of the false table, as an attacker who writes to the bucket can make it."""
    written = write_column(tmp_path, "image", samples(), per_shard=10)
    rows = written.table.to_pylist()
    rows[3][column] = value
    digest = write_table(tmp_path, pa.Table.from_pylist(rows))
    write_manifest(tmp_path, replace(written.manifest, records_sha256=digest))
    with pytest.raises(
        ShardError, match=r"records\.parquet (places members outside their shards|has \d row groups for 2 shards)"
    ):
        Column(tmp_path).read(0, "png")
