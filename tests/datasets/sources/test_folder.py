"""Any pictures."""

import io
import itertools
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from files.archives import read
from files.pictures import RejectedImageError, decode
from tests.datasets.sources.trees import (
    described,
    images_of,
    labels_of,
    pictures,
    splits_of,
    write_folder,
    write_gzip_tar,
    write_tar,
    write_zip,
)


def test_archive_in_a_folder_counts_as_unpacked_there(tmp_path: Path) -> None:
    files = pictures("train/1.jpg", "train/2.jpg", "val/3.jpg")
    expected = described(images_of("folder", write_folder(tmp_path / "tree", files)))
    parts = [{name: content} for name, content in files.items()]
    write_zip(tmp_path / "parts" / "1.zip", parts[0])
    write_gzip_tar(tmp_path / "parts" / "2", parts[1])
    write_folder(tmp_path / "parts", parts[2])
    assert described(images_of("folder", tmp_path / "parts")) == expected
    write_tar(tmp_path / "parts" / "copy.tar", parts[2])
    with pytest.raises(ValueError, match=r"val/3\.jpg is both in .*/parts and in .*/parts/copy\.tar; move one away"):
        images_of("folder", tmp_path / "parts")


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "Val"])
def test_split_folders_are_used(tmp_path: Path, val: str) -> None:
    root = write_folder(tmp_path, pictures("train/cat/1.jpg", "train/2.jpg", f"{val}/cat/1.jpg"))
    images = images_of("folder", root)
    assert splits_of(images) == {"train/cat/1": "train", "train/2": "train", f"{val}/cat/1": "val"}
    assert labels_of(images) == {"train/cat/1": "cat", "train/2": None, f"{val}/cat/1": "cat"}


def test_test_folder_stays_test_beside_val(tmp_path: Path) -> None:
    images = images_of("folder", write_folder(tmp_path, pictures("train/1.jpg", "val/1.jpg", "test/1.jpg")))
    assert splits_of(images) == {"train/1": "train", "val/1": "val", "test/1": "test"}


def test_split_folders_inside_one_enclosing_folder_are_used(tmp_path: Path) -> None:
    root = write_zip(tmp_path / "a.zip", pictures("mine/v1/train/cat/1.jpg", "mine/v1/val/cat/1.jpg"))
    images = images_of("folder", root)
    assert splits_of(images) == {"mine/v1/train/cat/1": "train", "mine/v1/val/cat/1": "val"}
    assert set(labels_of(images).values()) == {"cat"}


def test_picture_outside_the_split_folders_and_two_val_folders_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, pictures("train/1.jpg", "val/1.jpg", "extra/1.jpg"))
    with pytest.raises(ValueError, match=r"extra/1\.jpg is in none of train, val; move it into one, or away"):
        images_of("folder", root)
    write_folder(tmp_path, pictures("valid/1.jpg"))
    with pytest.raises(ValueError, match="train, val, valid name one split twice"):
        images_of("folder", root)


def test_only_images_are_read_where_masks_lie_beside_them(tmp_path: Path) -> None:
    flat = pictures("images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2.png", "cover.jpg")
    images = images_of("folder", write_folder(tmp_path / "flat", flat))
    assert list(splits_of(images)) == ["images/1", "images/2"]
    assert set(labels_of(images).values()) == {None}
    split = pictures(*(f"{s}/{kind}/1.jpg" for s in ("train", "val") for kind in ("images", "masks")))
    assert splits_of(images_of("folder", write_folder(tmp_path / "split", split))) == {
        "train/images/1": "train",
        "val/images/1": "val",
    }
    outer = pictures(*(f"{kind}/{s}/1.jpg" for s in ("train", "val") for kind in ("images", "masks")))
    assert splits_of(images_of("folder", write_folder(tmp_path / "outer", outer))) == {
        "images/train/1": "train",
        "images/val/1": "val",
    }


def test_hash_split_has_the_share_and_moves_no_picture_when_others_go(tmp_path: Path) -> None:
    files = dict.fromkeys((f"{number:04d}.jpg" for number in range(600)), b"listed, never decoded")
    before = splits_of(images_of("folder", write_zip(tmp_path / "a.zip", files), val_share=0.25))
    assert 0.2 < Counter(before.values())["val"] / 600 < 0.3
    fewer = dict(itertools.islice(files.items(), 0, None, 3))
    after = splits_of(images_of("folder", write_zip(tmp_path / "b.zip", fewer), val_share=0.25))
    assert len(after) == 200
    assert after.items() <= before.items()


@pytest.mark.parametrize("val_share", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("num_images", [2, 5])
def test_neither_split_of_a_small_folder_is_empty(tmp_path: Path, val_share: float, num_images: int) -> None:
    root = write_folder(tmp_path, pictures(*(f"{number}.jpg" for number in range(num_images))))
    counts = Counter(image.split for image in images_of("folder", root, val_share=val_share))
    assert min(counts["train"], counts["val"]) == 1
    assert counts.total() == num_images


def test_fewer_than_two_pictures_are_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path, pictures("images/1.jpg", "masks/1.jpg"))
    with pytest.raises(ValueError, match="holds 1 pictures; folder needs 2"):
        images_of("folder", root)


@pytest.mark.parametrize("other", ["a/1.png", "a/1.JPG"])
def test_two_sources_of_one_key_are_both_named(tmp_path: Path, other: str) -> None:
    root = write_folder(tmp_path, pictures("a/1.jpg", other, "a/2.jpg"))
    with pytest.raises(ValueError, match=r"a/1\.(jpg|png|JPG) and a/1\.(jpg|png|JPG) both have the key a/1; rename"):
        images_of("folder", root)


def test_other_image_formats_are_listed_so_that_they_are_counted_as_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "WEBP")
    root = write_folder(tmp_path, pictures("1.jpg", "2.jpg") | {"3.webp": buffer.getvalue()})
    images = images_of("folder", root)
    assert list(splits_of(images)) == ["1", "2", "3"]
    with pytest.raises(RejectedImageError, match="not a JPEG or PNG image"):
        decode(read(images[2].locator))
