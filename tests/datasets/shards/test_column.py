import io
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photographs import samples, write_column, write_split
from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import MANIFEST_NAME, ManifestError, read_manifest, write_manifest
from datasets.shards.records import ShardError
from files.pictures import decode_image
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def test_offsets_lead_to_the_members(tmp_path):
    column = write_column(tmp_path, "image", samples(), per_shard=8)
    for n, sample in enumerate(samples()):
        assert column.read(n, "png") == sample.members["png"]


def test_every_flipped_bit_of_a_member_is_found(tmp_path):
    column = write_column(tmp_path, "image", samples(), per_shard=7)
    table = column.table.to_pylist()
    keys = column.keys.to_pylist()
    rng = np.random.default_rng(0)
    for _ in range(200):
        row = table[rng.integers(len(table))]
        path = tmp_path / f"image-{row['shard']:06d}.tar"
        clean = path.read_bytes()
        place = row["offset"] + int(rng.integers(row["length"]))
        path.write_bytes(clean[:place] + bytes([clean[place] ^ (1 << int(rng.integers(8)))]) + clean[place + 1 :])
        with pytest.raises(ShardError, match=rf"{path.name}: {row['key']}\.{row['field']} has digest \w+, .* says \w+"):
            Column(tmp_path).read(keys.index(row["key"]), row["field"])
        with pytest.raises(ShardError, match=rf"{path.name} has digest"):
            Column(tmp_path).verify()
        path.write_bytes(clean)
    for _ in range(200):
        row = table[rng.integers(len(table))]
        column.read(keys.index(row["key"]), row["field"])
    Column(tmp_path).verify()


def test_the_first_record_of_a_process_imports_no_pandas(tmp_path):
    """Importing pandas takes a second in every process that reads."""
    plain = [replace(sample, members={"png": sample.members["png"]}) for sample in samples()]
    write_column(tmp_path, "image", plain)
    code = (
        "import sys; from pathlib import Path; from datasets.shards.column import Column\n"
        f"column = Column(Path({str(tmp_path)!r})); column.read(9); print(column.key(9), 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [plain[9].key, "False"]


def test_a_shorter_shard_is_refused_before_anything_is_read(tmp_path):
    write_column(tmp_path, "image", samples(), per_shard=20)
    path = tmp_path / "image-000000.tar"
    with tarfile.open(path) as tar:
        boundaries = [member.offset for member in tar][1:]
    whole = path.read_bytes()
    for size in [*boundaries[:20], *np.random.default_rng(0).integers(1, len(whole), 20)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=f"has {size} bytes, its manifest says {len(whole)} bytes"):
            Column(tmp_path)


def test_a_folder_without_manifest_is_not_complete(tmp_path):
    write_column(tmp_path, "image", samples())
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"is missing, so .* is not complete; run: dvc repro"):
        Column(tmp_path)


def test_an_edited_manifest_or_table_is_refused(tmp_path):
    write_column(tmp_path, "image", samples())
    manifest = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"records": 7', '"records": 9'))
    with pytest.raises(ManifestError, match="was edited"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest)
    with (tmp_path / "records.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ManifestError, match=r"records\.parquet has digest"):
        read_manifest(tmp_path)


def test_a_column_of_other_images_is_refused_with_both_digests(tmp_path):
    folders = write_split(tmp_path / "one", 4, size=32)
    others = write_split(tmp_path / "two", 5, size=32)
    check_alignment(Column(folders["image"]), Column(folders["edge"]))
    images, edges = Column(folders["image"]), Column(others["edge"])
    with pytest.raises(ShardError) as error:
        check_alignment(images, edges)
    assert edges.manifest.made_from in str(error.value)
    assert images.manifest.digest in str(error.value)


def test_a_record_that_a_column_lacks_is_named(tmp_path):
    images = write_column(tmp_path / "image", "image", samples(5))
    short = write_column(tmp_path / "edge", "edge", samples(5)[:-1], made_from=images.manifest.digest)
    with pytest.raises(ShardError, match="a/004 is in one of them only"):
        check_alignment(images, short)


def test_a_column_that_reads_many_shards_keeps_few_open(tmp_path):
    write_column(tmp_path, "image", samples(60), per_shard=3)
    column = Column(tmp_path, keep_shards=4)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    for n in range(60):
        assert column.read(n, "png") == samples(60)[n].members["png"]
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4
    with pytest.raises(IndexError, match="records 0 to 59, not 60"):
        column.read(60, "png")


def test_a_missing_member_is_named_when_a_column_is_opened(tmp_path):
    members = samples(10)
    del members[6].members["json"]
    with pytest.raises(ShardError, match=r"-000001\.tar: record a/006 has members png where others have json, png"):
        write_column(tmp_path, "image", members, per_shard=5)


@pytest.mark.parametrize("name", ["../image-000000.tar", "/etc/passwd", "pipe:touch canary", "file:///x.tar", "x.tgz"])
def test_shards_of_other_names_are_refused_when_read(tmp_path, name):
    write_column(tmp_path, "image", samples())
    path = tmp_path / MANIFEST_NAME
    path.write_text(path.read_text().replace("image-000000.tar", name))
    with pytest.raises(ManifestError, match="is not the name of a shard"):
        Column(tmp_path)


def test_shards_of_another_column_are_refused(tmp_path):
    written = write_column(tmp_path, "image", samples())
    write_manifest(tmp_path, replace(written.manifest, column="edge"))
    with pytest.raises(ShardError, match=r"its manifest lists image-000000\.tar, no edge"):
        Column(tmp_path)


class _Canary:
    """A value that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_members_that_could_run_code_are_never_decoded(tmp_path):
    canary = tmp_path / "canary"
    payload = pickle.dumps(_Canary(canary))
    array = io.BytesIO()
    np.save(array, np.array([_Canary(canary)], dtype=object))
    hostile = {"pyd": payload, "pickle": payload, "pth": payload, "npy": array.getvalue()}
    members = [replace(s, members={"png": s.members["png"], **hostile}) for s in samples(8)]
    column = write_column(tmp_path / "shards", "image", members)
    for n in range(8):
        assert decode_image(column.read(n, "png")).shape == (16, 16, 3)
        assert column.read(n, "pyd") == payload
    column.verify()
    with pytest.raises(ShardError, match=r"members npy, pickle, png, pth, pyd where one was expected"):
        TrainingSamples({"image": column.folder}, SampleConfig(), 1)[0]
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()  # the payload was live
