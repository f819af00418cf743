"""A source that changes during an ingest, or before it is resumed: the shards never mix what it was with what it is."""

import hashlib
import io
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import datasets.ingest
from benchmarks.photographs import photograph
from datasets.shards.column import Column
from datasets.sources import source_config
from files.archives import ArchiveError, ChangedFileError
from pipeline.stages import ingest
from tests.pipeline.pictures import small_params

NAMES = [f"{split}/{number:02d}.png" for split, count in (("train", 10), ("val", 4)) for number in range(count)]


def png(number: int) -> bytes:
    """A PNG of as many bytes as every other number's."""
    buffer = io.BytesIO()
    Image.fromarray(photograph(number, 40)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


OLD = {name: png(number) for number, name in enumerate(NAMES)}
NEW = {name: png(number + 20) for number, name in enumerate(NAMES)}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


FORMS: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "pictures.tar": write_tar,
    "pictures.tgz": partial(write_tar, mode="w:gz"),
    "pictures.zip": write_zip,
    "pictures": write_folder,
}


def overwrite(path: Path, files: dict[str, bytes]) -> None:
    """Write other pictures into the same files, and set their old times."""
    status = {file: file.stat() for file in (path, *path.rglob("*"))}
    FORMS[path.name](path, files)
    for file, before in status.items():
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def pack_anew(path: Path, files: dict[str, bytes]) -> None:
    """Write other pictures in another order beside the source, and let it take the source's place."""
    other = path.parent / "other" / path.name
    other.parent.mkdir()
    FORMS[path.name](other, dict(reversed(files.items())))
    if path.is_dir():
        path.rename(path.parent / "before")
    other.rename(path)


def at_picture(monkeypatch, count: int, act: Callable[[], object]) -> list[int]:
    """Let something happen before the picture of this number is decoded. Returns a list with the number decoded."""
    decode, decoded = datasets.ingest.decode_with_note, []

    def decode_and_act(content: bytes):
        decoded.append(len(decoded))
        if len(decoded) == count:
            time.sleep(0.02)  # systems before Linux 6.13 count time in steps of up to ten milliseconds
            act()
        return decode(content)

    monkeypatch.setattr(datasets.ingest, "decode_with_note", decode_and_act)
    return decoded


def sources_in_shards() -> set[bytes]:
    columns = [Column(path) for path in Path("shards/image").iterdir()]
    return {row["source_sha256"] for column in columns for row in column.table.to_pylist()}


def digests(files: dict[str, bytes]) -> set[bytes]:
    return {hashlib.sha256(content).digest() for content in files.values()}


@pytest.fixture
def params(request, tmp_path, monkeypatch):
    """An ingest of fourteen pictures into seven shards."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    root = tmp_path / request.param
    FORMS[root.name](root, OLD)
    return small_params(root, records_per_shard=2)


@pytest.mark.parametrize("change", [overwrite, pack_anew])
@pytest.mark.parametrize("params", FORMS, indirect=True)
def test_a_source_that_changes_stops_the_ingest_and_the_next_one_takes_all_pictures_as_they_are(
    params, monkeypatch, change
):
    root = Path(params.dataset.root)
    size = root.stat().st_size
    decoded = at_picture(monkeypatch, 6, lambda: change(root, NEW))
    with pytest.raises(ChangedFileError, match=rf"^{root}\S* has changed since it was listed; make sure"):
        ingest.run(params)
    assert 6 <= len(decoded) <= 8  # those of the shard at work may have been read
    assert root.name == "pictures.tgz" or root.stat().st_size == size
    assert len(list(Path("shards").rglob("*.done"))) >= 2
    assert not list(Path("shards").rglob("manifest.json"))
    ingest.run(params)
    assert sources_in_shards() == digests(NEW)


@pytest.mark.parametrize("change", [overwrite, pack_anew])
@pytest.mark.parametrize("params", FORMS, indirect=True)
def test_a_resumed_ingest_keeps_no_shard_of_a_source_that_has_changed(params, monkeypatch, change):
    def stop() -> None:
        raise KeyboardInterrupt

    at_picture(monkeypatch, 9, stop)
    with pytest.raises(KeyboardInterrupt):
        ingest.run(params)
    assert len(list(Path("shards").rglob("*.done"))) == 4
    change(Path(params.dataset.root), NEW)
    ingest.run(params)
    assert sources_in_shards() == digests(NEW)


@pytest.mark.parametrize("params", ["pictures.tar"], indirect=True)
def test_a_source_that_stays_keeps_its_shards(params, monkeypatch):
    decoded = at_picture(monkeypatch, 9, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ingest.run(params)
    ingest.run(params)
    assert len(decoded) == 9 + len(NAMES) - 8  # four shards, of two pictures each, were finished


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_list_file_that_changes_stops_the_ingest_before_its_end(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    names = [f"img_align_celeba/{number:06d}.jpg" for number in range(1, 15)]
    pictures = dict(zip(names, OLD.values(), strict=True))
    partition = "".join(f"{name[-10:]} {number % 2}\n" for number, name in enumerate(names))
    root = tmp_path / "celeba"
    write_folder(root, pictures) if place == "inside" else write_tar(root, pictures)
    listed = (root if place == "inside" else tmp_path) / "list_eval_partition.txt"
    listed.write_text(partition)
    params = small_params(root, records_per_shard=2)
    params = replace(params, dataset=source_config(name="celeba", root=str(root)))

    def exchange() -> None:
        before = listed.stat()
        listed.write_text(partition.translate(str.maketrans("01", "10")))
        os.utime(listed, ns=(before.st_atime_ns, before.st_mtime_ns))

    at_picture(monkeypatch, 14, exchange)
    with pytest.raises(ChangedFileError, match=r"list_eval_partition\.txt has changed since it was listed"):
        ingest.run(params)
    assert not list(Path("shards").rglob("manifest.json"))


@pytest.mark.parametrize("params", ["pictures"], indirect=True)
def test_links_out_of_the_source_are_followed_when_the_parameters_ask_for_it(params, tmp_path):
    root = Path(params.dataset.root)
    shutil.move(root / "val", tmp_path / "elsewhere")
    (root / "val").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match=r"val is a link that leads out of the folder, to .*elsewhere; .* set "):
        ingest.run(params)
    ingest.run(replace(params, dataset=replace(params.dataset, follow_links=True)))
    assert sources_in_shards() == digests(OLD)
