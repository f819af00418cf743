"""Malicious archives and pictures, given to `ingest` as a data set."""

import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.shards.column import Column
from datasets.shards.manifest import read_manifest
from files.archives import ArchiveError
from pipeline.layout import column_folder
from pipeline.stages import ingest
from pipeline.verbs import audit
from tests.pipeline.pictures import small_params, write_pictures, write_shards

NAMES = (
    "../outside.png",
    "a/../../outside.png",
    "/tmp/outside.png",
    "a\\..\\outside.png",
    "a" * 5000 + ".png",
    "a\nb.png",
)
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


def picture(number):
    buffer = io.BytesIO()
    Image.fromarray(photograph(number, 48)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            content = picture(1) if kind == tarfile.REGTYPE else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o120777 if kind == tarfile.SYMTYPE else 0o100644) << 16
            archive.writestr(member, picture(1) if kind == tarfile.REGTYPE else b"/etc/passwd")


def test_archives_that_lead_outside_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    inside = tmp_path / "work" / "run"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    good = [(f"{split}/{n}.png", tarfile.REGTYPE) for split in ("train", "val") for n in range(2)]
    hostile = [[*good, (name, tarfile.REGTYPE)] for name in NAMES] + [[*good, ("train/x.png", kind)] for kind in KINDS]
    refused = 0
    for members in hostile:
        for suffix in (".tar", ".tgz", ".zip"):
            if suffix == ".zip" and members[-1][1] not in (tarfile.REGTYPE, tarfile.SYMTYPE):
                continue
            archive = inside / f"pictures{suffix}"
            (write_zip if suffix == ".zip" else write_tar)(archive, members)
            before = sorted(tmp_path.rglob("*"))
            with pytest.raises(ArchiveError, match=f"pictures{suffix}"):
                ingest.run(small_params(archive))
            assert sorted(tmp_path.rglob("*")) == before
            archive.unlink()
            refused += 1
    assert refused == 3 * len(NAMES) + 2 * len(KINDS) + 1
    assert not Path("/tmp/outside.png").exists()


def huge_png(side):
    """Make a PNG of a few hundred bytes whose header claims side x side pixels, which would take gigabytes."""

    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(2**16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_pictures_and_archives_that_would_fill_the_memory_are_rejected_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures")
    params = small_params(pictures, max_rejected=0.2)
    ingest.run(params)
    clean = Column(Path("shards/image/train")).keys.to_pylist()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(2**24))
    bad = {
        "60000.png": (huge_png(60_000), "too many pixels"),
        "12000.png": (huge_png(12_000), "too many pixels"),
        "zip.png": (inner.getvalue(), "not a JPEG or PNG image"),
    }
    for name, (content, _) in bad.items():
        (pictures / "train" / name).write_bytes(content)
    ingest.run(params)
    rejected = {Path(r.name).name: r.reason for r in read_manifest(Path("shards/image/train")).rejected}
    assert rejected == {name: reason for name, (_, reason) in bad.items()}
    assert sorted(Column(Path("shards/image/train")).keys.to_pylist()) == sorted(clean)


def test_a_zip_that_claims_a_terabyte_costs_one_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("pictures.zip", "w") as archive:
        for split in ("train", "val"):
            for number in range(8):
                archive.writestr(f"{split}/{number}.png", picture(number))
        archive.writestr("train/huge.png", picture(9))
        archive.filelist[-1].file_size = 2**40
    params = small_params(tmp_path / "pictures.zip", max_rejected=0.2)
    ingest.run(params)
    rejected = read_manifest(Path("shards/image/train")).rejected
    assert [(r.name, r.reason) for r in rejected] == [("train/huge.png", "file too large")]


def test_a_shard_left_without_any_usable_picture_leaves_a_gap_that_columns_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures")
    params = small_params(pictures, max_rejected=0.5)
    ingest.run(params)
    column = Column(Path("shards/image/train"))
    victims = [column.keys[record].as_py() for record in column.records_of(2)]
    for key in victims:
        (pictures / f"{key}.png").write_bytes(b"")
    write_shards(params)
    images, edges = (Column(column_folder(name, "train")) for name in ("image", "edge"))
    assert [shard.name[-6:-4] for shard in images.manifest.shards] == ["00", "01", "03", "04"]
    assert [shard.name[-6:-4] for shard in edges.manifest.shards] == ["00", "01", "03", "04"]
    for record in range(images.manifest.records):
        images.read(record)
        edges.read(record)
    assert not [finding for finding in audit.run(params).findings if "max_rejected" not in finding.problem]
