"""Places365 as downloaded."""

import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from datasets.sources import SourceError, open_source, source_config
from files.archives import ArchiveError, read
from tests.datasets.sources.trees import (
    described,
    images_of,
    jpeg,
    labels_of,
    pictures,
    splits_of,
    under,
    write_folder,
    write_tar,
)

PLACES_TRAIN = pictures(
    "a/airfield/00000001.jpg",
    "a/airfield/00000002.jpg",
    "b/balcony/exterior/00000001.jpg",
    "f/field/wild/00000001.jpg",
)
PLACES_VAL = pictures("Places365_val_00000001.jpg", "Places365_val_00000002.jpg")
PLACES_LISTS = {
    "categories_places365.txt": b"/a/airfield 0\n/b/balcony/exterior 1\n/f/field/wild 2\n",
    "places365_val.txt": b"Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 0\n",
}


def _official_places(path: Path, train: str = "data_256", val: str = "val_256") -> Path:
    return write_folder(path, under(train, PLACES_TRAIN) | under(val, PLACES_VAL) | PLACES_LISTS)


def test_places_class_is_the_whole_path_after_the_letter(tmp_path: Path) -> None:
    images = images_of("places2", _official_places(tmp_path))
    assert labels_of(images) == {
        "Places365_val_00000001": "field/wild",
        "Places365_val_00000002": "airfield",
        "a/airfield/00000001": "airfield",
        "a/airfield/00000002": "airfield",
        "b/balcony/exterior/00000001": "balcony/exterior",
        "f/field/wild/00000001": "field/wild",
    }
    assert Counter(splits_of(images).values()) == {"train": 4, "val": 2}


def test_places_same_base_name_in_two_classes_gives_two_records(tmp_path: Path) -> None:
    images = images_of("places2", _official_places(tmp_path))
    same = [image for image in images if image.name.endswith("/00000001.jpg")]
    assert len({image.key for image in same}) == len({read(image.locator) for image in same}) == 3


def test_places_archives_and_trees_give_the_same_pictures(tmp_path: Path) -> None:
    expected = images_of("places2", _official_places(tmp_path / "tree"))
    archives = tmp_path / "archives"
    write_tar(archives / "train_256_places365standard.tar", under("data_256", PLACES_TRAIN))
    write_tar(archives / "val_256.tar", under("val_256", PLACES_VAL))
    write_tar(archives / "filelist_places365-standard.tar", PLACES_LISTS)
    assert described(images_of("places2", archives)) == described(expected)
    renamed = images_of("places2", _official_places(tmp_path / "renamed", train="data_256_standard"))
    assert [(i.key, i.split, i.label) for i in renamed] == [(i.key, i.split, i.label) for i in expected]
    alone = images_of("places2", archives / "train_256_places365standard.tar")
    assert described(alone) == [row for row in described(expected) if row[2] == "train"]


def test_places_variant_picks_the_files_and_skips_the_other_archives(tmp_path: Path) -> None:
    _official_places(tmp_path)
    large = under("data_large", {"a/abbey/00000001.jpg": jpeg(77)})
    write_tar(tmp_path / "train_large_places365standard.tar", large)
    (tmp_path / "val_large.tar").write_bytes(write_tar(tmp_path / "x", PLACES_VAL).read_bytes()[:700])  # cut
    (tmp_path / "x").unlink()
    assert len(images_of("places2", tmp_path)) == 6
    with pytest.raises(ArchiveError, match=r"val_large\.tar: .* than there can be"):
        images_of("places2", tmp_path, variant="large")
    (tmp_path / "val_large.tar").unlink()
    assert labels_of(images_of("places2", tmp_path, variant="large")) == {"a/abbey/00000001": "abbey"}


def test_places_easy_format(tmp_path: Path) -> None:
    files = pictures("train/airfield/00000001.jpg", "train/field/wild/00000001.jpg", "val/airfield/x.jpg")
    for root in (
        write_folder(tmp_path / "tree", files),
        write_tar(tmp_path / "places365standard_easyformat.tar", under("places365_standard", files)),
    ):
        images = images_of("places2", root)
        assert labels_of(images) == {
            "train/airfield/00000001": "airfield",
            "train/field/wild/00000001": "field/wild",
            "val/airfield/x": "airfield",
        }
        assert Counter(splits_of(images).values()) == {"train": 2, "val": 1}


@pytest.mark.parametrize("second", ["train/airfield/1.jpg", "data_256/a/abbey/1.jpg"])
def test_places_layouts_are_never_mixed(tmp_path: Path, second: str) -> None:
    _official_places(tmp_path, train="data_256_standard")
    write_folder(tmp_path, {second: jpeg(9)})
    with pytest.raises(ValueError, match=r"has train twice, as .* and as .* never mixed"):
        images_of("places2", tmp_path)


@pytest.mark.parametrize("form", ["archives", "trees", "easy format"])
def test_places_edition_picks_the_training_pictures_and_shares_val(tmp_path: Path, form: str) -> None:
    challenge = {"a/abbey/00000009.jpg": jpeg(9)}
    write_folder(tmp_path, under("val_256", PLACES_VAL))
    if form == "archives":
        write_tar(tmp_path / "train_256_places365standard.tar", under("data_256", PLACES_TRAIN))
        write_tar(tmp_path / "train_256_places365challenge.tar", under("data_256", challenge))
    elif form == "trees":
        write_folder(tmp_path, under("data_256_standard", PLACES_TRAIN) | under("data_256_challenge", challenge))
    else:
        write_folder(tmp_path, pictures("train/airfield/1.jpg") | under("data_256_challenge", challenge))
    standard, challenge = (images_of("places2", tmp_path, edition=edition) for edition in ("standard", "challenge"))
    assert {image.key for image in challenge if image.split == "train"} == {"a/abbey/00000009"}
    assert len([image for image in standard if image.split == "train"]) == (1 if form == "easy format" else 4)
    assert [i for i in standard if i.split == "val"] == [i for i in challenge if i.split == "val"] != []


def test_places_archives_of_the_other_edition_stay_closed(tmp_path: Path) -> None:
    write_tar(tmp_path / "train_256_places365standard.tar", under("data_256", PLACES_TRAIN))
    cut = tmp_path / "train_256_places365challenge.tar"
    cut.write_bytes((tmp_path / "train_256_places365standard.tar").read_bytes()[:700])
    assert len(images_of("places2", tmp_path)) == 4
    with pytest.raises(ArchiveError, match=r"challenge\.tar: .* than there can be"):
        images_of("places2", tmp_path, edition="challenge")


def test_places_lists_of_the_other_edition_serve_where_ours_are_missing(tmp_path: Path) -> None:
    write_folder(tmp_path, under("val_256", PLACES_VAL))
    write_tar(tmp_path / "filelist_places365-standard.tar", PLACES_LISTS)
    for edition in ("standard", "challenge"):
        assert labels_of(images_of("places2", tmp_path, edition=edition))["Places365_val_00000001"] == "field/wild"
    swapped = PLACES_LISTS["places365_val.txt"].replace(b" 2", b" 1")
    write_tar(tmp_path / "filelist_places365-challenge.tar", PLACES_LISTS | {"places365_val.txt": swapped})
    found = [images_of("places2", tmp_path, edition=edition)[0].label for edition in ("standard", "challenge")]
    assert found == ["field/wild", "balcony/exterior"]


def test_places_list_of_many_pictures_is_small(tmp_path: Path) -> None:
    """At most 600 bytes a picture, so that the eight million of Challenge fit into 5 GB."""
    names = [f"data_256/{c[0]}/{c}/{n:08d}.jpg" for c in ("airfield", "bridge/covered") for n in range(2000)]
    root = write_tar(tmp_path / "train_256_places365challenge.tar", dict.fromkeys(names, b"1"))
    tracemalloc.start()
    try:
        images = images_of("places2", root, edition="challenge")
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(images) == len(names)
    assert 200 < held / len(images) < 600
    assert peak / len(images) < 900


def test_places_works_without_lists_and_names_bad_ones(tmp_path: Path) -> None:
    _official_places(tmp_path)
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n")
    with pytest.raises(ValueError, match=r"places365_val\.txt and categories_places365\.txt do not match"):
        images_of("places2", tmp_path)
    (tmp_path / "places365_val.txt").unlink()
    assert labels_of(images_of("places2", tmp_path))["Places365_val_00000001"] is None


def test_places_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no pictures of places2 \(edition standard, variant large\); expected"):
        images_of("places2", _official_places(tmp_path), variant="large")


def test_places_classes_choose_pictures_and_count_the_others(tmp_path: Path) -> None:
    root = _official_places(tmp_path)
    source = open_source(source_config("places2", root=str(root), classes=("airfield",)))
    assert labels_of(source.images()) == dict.fromkeys(
        ("Places365_val_00000002", "a/airfield/00000001", "a/airfield/00000002"), "airfield"
    )
    counts = {rule.rule: rule.count for rule in source.left_out()}
    assert counts["picture of a class that is not in dataset.classes"] == 3
    assert source.unlike_published({"train": 2, "val": 1}) == {}
    with pytest.raises(SourceError, match="no pictures of the class 'airfeld'; did you mean airfield"):
        images_of("places2", root, classes=("airfeld",))
