"""ImageNet, above all its tar of tars."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datasets.sources import SourceImage
from files.archives import ArchiveError, read, read_many
from tests.datasets.sources.trees import (
    images_of,
    jpeg,
    pictures,
    under,
    write_folder,
    write_gzip_tar,
    write_tar,
    write_zip,
)  # fmt: skip

TRAIN = {
    wnid: pictures(*(f"{wnid}_{n}.JPEG" for n in (10026, 2, 333))) for wnid in ("n01440764", "n01443537", "n02105855")
}
VAL = pictures(*(f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)))
TREE = {f"train/{wnid}/{name}": content for wnid, files in TRAIN.items() for name, content in files.items()}


def _tar_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


INNER = {f"{wnid}.tar": _tar_bytes(files) for wnid, files in TRAIN.items()}


def _found(images: list[SourceImage]) -> list[tuple[object, ...]]:
    return [(image.key, image.split, image.label, image.group, read(image.locator)) for image in images]


def test_every_layout_of_train_gives_the_same_pictures(tmp_path: Path) -> None:
    expected = _found(images_of("imagenet", write_folder(tmp_path / "tree", TREE)))
    assert [row[:3] for row in expected[:2]] == [
        ("n01440764/n01440764_10026", "train", "n01440764"), ("n01440764/n01440764_2", "train", "n01440764")
    ]  # fmt: skip
    assert len({row[4] for row in expected}) == 9
    official = write_tar(tmp_path / "official" / "ILSVRC2012_img_train.tar", INNER)
    layouts = {
        "the tar of tars": official,
        "a folder with it": official.parent,
        "the same, packed": write_gzip_tar(tmp_path / "train.tar.gz", INNER),
        "a folder of the inner tars": write_folder(tmp_path / "inner", INNER),
        "them in train/": write_folder(tmp_path / "inner train", under("train", INNER)),
        "a tar of it": write_tar(tmp_path / "inner.tar", under("ILSVRC/train", INNER)),
        "Kaggle's": write_zip(tmp_path / "kaggle.zip", under("ILSVRC/Data/CLS-LOC", TREE)),
    }
    for layout, root in layouts.items():
        assert _found(images_of("imagenet", root)) == expected, layout


def test_members_of_a_packed_tar_of_tars_come_in_one_pass_too(tmp_path: Path) -> None:
    images = images_of("imagenet", write_gzip_tar(tmp_path / "train.tar.gz", INNER))
    assert list(read_many(image.locator for image in images)) == [read(image.locator) for image in images]


def test_an_inner_tar_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"a\.zip: n01440764\.tar is a tar inside a zip; unpack the zip"):
        images_of("imagenet", write_zip(tmp_path / "a.zip", INNER))


@pytest.mark.parametrize(
    "damaged",
    [INNER["n01443537.tar"][:1300], b"no tar" * 1000, INNER["n01443537.tar"][:-10240] + b"\1" * 10240],
    ids=["cut", "text", "no end"],
)
@pytest.mark.parametrize("write", [write_tar, write_gzip_tar, write_folder])
def test_a_damaged_inner_tar_is_named(tmp_path: Path, damaged: bytes, write) -> None:
    root = write(tmp_path / "train", under("train", INNER | {"n01443537.tar": damaged}))
    with pytest.raises(ArchiveError, match=r"n01443537\.tar"):
        images_of("imagenet", root)


def test_an_inner_tar_cannot_reach_beyond_itself(tmp_path: Path) -> None:
    """Without its end an inner tar would go on with the header of the next one."""
    blocks = INNER["n01440764.tar"]
    end = blocks.rstrip(b"\0")
    endless = blocks[: -(-len(end) // 512) * 512]
    root = write_tar(tmp_path / "train.tar", {"n01440764.tar": endless, "n01443537.tar": INNER["n01443537.tar"]})
    with pytest.raises(ArchiveError, match=r"n01440764\.tar: n01443537\.tar claims .* more than there can be"):
        images_of("imagenet", root)
    outside = {"n01440764.tar": _tar_bytes({"../n01440764_1.JPEG": jpeg(0)})}
    with pytest.raises(ArchiveError, match=r"leads out with \.\."):
        images_of("imagenet", write_tar(tmp_path / "hostile.tar", outside))


def _devkit(numbers: str) -> dict[str, bytes]:
    """As in the original: numbers 1 to 3 are the classes, in another order than their ids; 4 is a group of classes."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(1, "n02105855"), (2, "n01440764"), (3, "n01443537"), (4, "n00001740")]
    synsets = np.array([(*row, "words", "gloss", 0 if row[0] < 4 else 3) for row in rows], dtype=kinds)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    truth = {"ILSVRC2012_validation_ground_truth.txt": numbers.encode(), "meta.mat": buffer.getvalue()}
    return under("ILSVRC2012_devkit_t12/data", truth)


def test_flat_val_has_the_labels_of_the_devkit_and_folders_their_own(tmp_path: Path) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", VAL)
    assert [image.label for image in images_of("imagenet", tmp_path)] == [None] * 3
    write_gzip_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", _devkit("3\n1\n2\n"))
    images = images_of("imagenet", tmp_path)
    assert [(i.key, i.split, i.label) for i in images] == [
        ("ILSVRC2012_val_00000001", "val", "n01443537"),
        ("ILSVRC2012_val_00000002", "val", "n02105855"),
        ("ILSVRC2012_val_00000003", "val", "n01440764"),
    ]
    foldered = {f"val/{image.label}/{image.key}.JPEG": VAL[f"{image.key}.JPEG"] for image in images}
    assert _found(images_of("imagenet", write_folder(tmp_path / "own", foldered))) == _found(images)


@pytest.mark.parametrize("change", [{"meta.mat": b"damaged"}, {"ILSVRC2012_validation_ground_truth.txt": b"5\n"}])
def test_bad_devkit_is_named(tmp_path: Path, change: dict[str, bytes]) -> None:
    write_folder(tmp_path, VAL | _devkit("3\n1\n2\n") | under("ILSVRC2012_devkit_t12/data", change))
    with pytest.raises(ValueError, match=r"imagenet: meta\.mat and the ground truth of the devkit do not match"):
        images_of("imagenet", tmp_path)


def test_test_pictures_have_no_labels(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "t.tar", under("test", pictures("ILSVRC2012_test_00000001.JPEG")))
    assert [(i.key, i.split, i.label) for i in images_of("imagenet", root)] == [
        ("ILSVRC2012_test_00000001", "test", None)
    ]
