"""Ingest accounts for every file of a source, in the manifests and on the terminal, and stores what can be read."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.shards.column import Column
from datasets.shards.manifest import read_manifest
from files.left_out import LeftOut
from files.pictures import decode, decode_image
from pipeline.stages import ingest
from pipeline.verbs import audit
from tests.pipeline.pictures import small_params, write_gzip_tar, write_pictures


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def with_gamma(content: bytes) -> bytes:
    """The same PNG with a gamma that is too short."""
    return content[:33] + chunk(b"gAMA", b"\0") + content[33:]


def test_manifests_and_terminal_state_what_was_left_out_and_dropped(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures", 20)
    ingest.run(small_params(pictures))
    plain = Path("shards/image/train/manifest.json").read_bytes()
    shard = Path("shards/image/train/image-000000.tar").read_bytes()
    assert b"left_out" not in plain
    assert b"metadata_dropped" not in plain
    assert not caplog.text
    for name in ("train/@eaDir/1.png/thumb.jpg", "val/.hidden.png", "notes.txt", "labels.json"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(b"1")
    for name in ("train/001.png", "train/002.png", "val/000.png"):
        (pictures / name).write_bytes(with_gamma((pictures / name).read_bytes()))
    manifests = []
    for root in (pictures, write_gzip_tar(pictures, tmp_path / "pictures.tgz")):
        caplog.clear()
        ingest.run(small_params(root))
        assert caplog.messages == [
            "folder: left out by rule: 1 hidden file or folder (val/.hidden.png); 2 not a picture (labels.json); "
            "1 thumbnails, trash or snapshots of a system (train/@eaDir/1.png/thumb.jpg)",
            "folder: metadata that cannot be read was dropped from 3 pictures",
        ]
        manifests.append([read_manifest(Path("shards/image", split)) for split in ("train", "val")])
    assert manifests[0] == manifests[1]
    train, val = manifests[0]
    assert (train.metadata_dropped, val.metadata_dropped) == (2, 1)
    assert train.left_out == val.left_out
    assert train.left_out[1] == LeftOut(rule="not a picture", count=2, examples=("labels.json", "notes.txt"))
    assert train.records + val.records + sum(entry.count for entry in train.left_out) == 24
    assert Path("shards/image/train/image-000000.tar").read_bytes() == shard
    assert not audit.run(small_params(pictures)).findings


def test_dropped_metadata_is_counted_in_shards_of_an_interrupted_run_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures", 20)
    for path in pictures.rglob("*.png"):
        path.write_bytes(with_gamma(path.read_bytes()))
    commit = ingest.commit_column

    def stop_at_the_end(*rest, on_shard, **more):
        seen = []
        commit(*rest, on_shard=lambda shard: seen.append(shard) or (len(seen) == 2 and 1 / 0), **more)

    monkeypatch.setattr(ingest, "commit_column", stop_at_the_end)
    with pytest.raises(ZeroDivisionError):
        ingest.run(small_params(pictures))
    monkeypatch.setattr(ingest, "commit_column", commit)
    assert len(list(Path("shards").rglob("*.done"))) == 2
    ingest.run(small_params(pictures))
    assert [read_manifest(Path("shards/image", s)).metadata_dropped for s in ("train", "val")] == [16, 4]


def encoded(number: int, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph(number, 48)).save(buffer, format_name, **options)
    return buffer.getvalue()


def odd_pictures(seed: int) -> dict[str, bytes]:
    """Pictures whose metadata or ends are odd, no two of them of the same pixels."""
    second = [Image.fromarray(photograph(seed + 50, 48))]
    png = [encoded(seed + number, "PNG") for number in range(12)]
    jpeg = [encoded(seed + number, "JPEG", quality=80) for number in range(12)]
    return {
        "plain.png": png[0],
        "no end.png": png[1][:-12],
        "half an end.png": png[2][:-6],
        "bytes behind.png": png[3] + b"more",
        "gamma.png": with_gamma(png[4]),
        "profile.png": png[5][:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000))) + png[5][33:],
        "animated.png": encoded(seed + 6, "PNG", save_all=True, append_images=second),
        "film behind.jpg": jpeg[7] + b"\0\0\0\x18ftypmp42" + bytes(99),
        "two frames.jpg": encoded(seed + 8, "MPO", save_all=True, append_images=second),
        "profile2.jpg": jpeg[9][:2] + b"\xff\xe2" + struct.pack(">H", 14) + b"ICC_PROFILE\0" + jpeg[9][2:],
        "wrong suffix.png": jpeg[10],
        "wrong suffix2.jpg": png[11],
    }


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_kept_sources_are_read_from_the_shards_whatever_their_ends_and_metadata(
    tmp_path, monkeypatch, image_format, capfd
):
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    for split, seed in (("train", 0), ("val", 100)):
        (pictures / split).mkdir(parents=True)
        for name, content in odd_pictures(seed).items():
            (pictures / split / name).write_bytes(content)
    params = small_params(pictures, rule="keep", keep_source=True, format=image_format, max_rejected=0.0)
    ingest.run(params)
    assert "libpng" not in capfd.readouterr().err
    kept = set()
    for split in ("train", "val"):
        column = Column(Path("shards/image", split))
        rows = column.table.to_pylist()
        assert column.manifest.rejected == ()
        assert len(rows) == len(odd_pictures(0))
        for record, row in enumerate(rows):
            stored, source = column.read(record), decode((pictures / row["source"]).read_bytes())
            is_kept = row["sha256"] == row["source_sha256"]
            tolerance = 40 if row["field"] == "jpg" and not is_kept else 0
            for read in (decode_image(stored), np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))):
                np.testing.assert_allclose(read.astype(int), source.astype(int), atol=tolerance)
            if is_kept:
                kept.add(row["source"])
    png, jpeg = {"plain.png", "bytes behind.png", "wrong suffix2.jpg"}, {"film behind.jpg", "wrong suffix.png"}
    of_train = {"jpeg": jpeg, "png": png}[image_format]
    assert kept == {f"train/{name}" for name in of_train} | {f"val/{name}" for name in png}
    assert not audit.run(params).findings


def test_a_split_without_a_usable_picture_names_one_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures", 10)
    for path in (pictures / "val").iterdir():
        path.write_bytes(b"")
    params = small_params(pictures, max_rejected=0.9)
    with pytest.raises(ValueError, match=r"no record of split val is usable, .*; one is val/00\d\.png: empty file"):
        ingest.run(params)
