"""DTD."""

from pathlib import Path

import pytest

from files.archives import archive_kind
from tests.datasets.sources.trees import images_of, labels_of, pictures, splits_of, write_folder, write_tar

FILES = ("banded/banded_0001.jpg", "banded/banded_0002.jpg", "woven/woven_0001.jpg")
SPLITS = ("train", "val", "test")


def _dtd() -> dict[str, bytes]:
    """Division n turns the files by n places."""
    lists = {
        f"dtd/labels/{split}{n}.txt": f"{FILES[(i + n) % 3]}\n".encode()
        for n in range(1, 11)
        for i, split in enumerate(SPLITS)
    }
    return pictures(*(f"dtd/images/{file}" for file in FILES)) | lists | {"dtd/imdb/imdb.mat": b"not read"}


def test_each_of_the_ten_divisions_is_read_from_its_own_lists(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "dtd-r1.0.1.tar.gz", _dtd())
    assert archive_kind(root) == "tar"  # whatever its name says
    for n in range(1, 11):
        expected = {FILES[(i + n) % 3].removesuffix(".jpg"): split for i, split in enumerate(SPLITS)}
        assert splits_of(images_of("dtd", root, split_number=n)) == expected
    assert splits_of(images_of("dtd", root)) == splits_of(images_of("dtd", root, split_number=1))
    assert set(labels_of(images_of("dtd", root)).items()) == {
        ("banded/banded_0001", "banded"), ("banded/banded_0002", "banded"), ("woven/woven_0001", "woven")
    }  # fmt: skip


def test_missing_doubled_and_short_lists_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, _dtd())
    lists = root / "dtd" / "labels"
    (lists / "val3.txt").unlink()
    with pytest.raises(ValueError, match=r"dtd: labels/val3\.txt is missing, so no picture has a split"):
        images_of("dtd", root, split_number=3)
    (lists / "val3.txt").write_text("".join(f"{file}\n" for file in FILES))
    with pytest.raises(ValueError, match=r"dtd: banded/banded_0001\.jpg is in the lists of train and val"):
        images_of("dtd", root, split_number=3)
    (lists / "val3.txt").write_text("")
    with pytest.raises(ValueError, match=r"dtd: dtd/images/banded/banded_0002\.jpg is in none of labels/\*3\.txt"):
        images_of("dtd", root, split_number=3)
