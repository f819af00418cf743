"""CelebA-HQ in its forms and divisions."""

from pathlib import Path

import numpy as np
import pytest

from datasets.sources import SOURCES, open_source, source_config
from tests.datasets.sources.trees import (
    described,
    images_of,
    jpeg,
    label_map,
    label_png,
    pictures,
    splits_of,
    under,
    write_folder,
    write_zip,
)

# The limits of the partition by name: train ends at 162770, val at 182637
ORIGINALS = {0: 162770, 1: 162771, 2: 182637, 3: 182638}
LIMITS = {162770: 0, 162771: 1, 182637: 1, 182638: 2}
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PARTITION = "list_eval_partition.txt"
CELEBA_LISTS = {
    MAPPING: "".join(
        ["idx      orig_idx    orig_file\n", *(f"{i:<9}{n - 1:<12}{n:06d}.jpg\n" for i, n in ORIGINALS.items())]
    ).encode(),
    PARTITION: "".join(f"{n:06d}.jpg {split}\n" for n, split in LIMITS.items()).encode(),
}
MASKED = pictures(*(f"CelebA-HQ-img/{index}.jpg" for index in ORIGINALS))


def test_celeba_split_joins_by_file_name_at_both_limits(tmp_path: Path) -> None:
    images = images_of("celeba_hq", write_folder(tmp_path, MASKED | CELEBA_LISTS))
    assert splits_of(images) == {"0": "train", "1": "val", "2": "val", "3": "test"}
    assert {image.group for image in images} == {None}


def test_celeba_renamed_files_count_from_one(tmp_path: Path) -> None:
    files = pictures(*(f"data256x256/{index + 1:05d}.jpg" for index in ORIGINALS))
    images = images_of("celeba_hq", write_folder(tmp_path, files | CELEBA_LISTS))
    assert splits_of(images) == {"00001": "train", "00002": "val", "00003": "val", "00004": "test"}


def test_celeba_tree_zip_and_zip_in_a_folder_give_the_same_pictures(tmp_path: Path) -> None:
    """The official zip holds the mapping and never the partition, which belongs to CelebA: it lies beside the zip."""
    masks = under("CelebAMask-HQ-mask-anno/0", pictures("00000_hair.png", "00000_skin.png"))
    inside = under("CelebAMask-HQ", MASKED | masks | {MAPPING: CELEBA_LISTS[MAPPING]})
    outside = {PARTITION: CELEBA_LISTS[PARTITION]}
    expected = described(images_of("celeba_hq", write_folder(tmp_path / "tree", inside | outside)))
    assert len(expected) == 4
    zipped = write_zip(tmp_path / "zipped" / "CelebAMask-HQ.zip", inside)
    with pytest.raises(ValueError, match=rf"{PARTITION} is missing, so no picture has a split; put it into .*/zipped$"):
        images_of("celeba_hq", zipped)
    write_folder(zipped.parent, outside)
    assert described(images_of("celeba_hq", zipped)) == expected
    assert described(images_of("celeba_hq", zipped.parent)) == expected


@pytest.mark.parametrize("missing", [MAPPING, PARTITION])
def test_celeba_missing_list_is_named_with_its_place(tmp_path: Path, missing: str) -> None:
    write_folder(tmp_path, MASKED | CELEBA_LISTS)
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"{missing} is missing, so no picture has a split; put it into {tmp_path}"):
        images_of("celeba_hq", tmp_path)


def test_celeba_picture_outside_the_lists_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, MASKED | CELEBA_LISTS | {"CelebA-HQ-img/9.jpg": jpeg(9)})
    with pytest.raises(ValueError, match=rf"CelebA-HQ-img/9\.jpg has no entry in {MAPPING}"):
        images_of("celeba_hq", tmp_path)
    (tmp_path / "CelebA-HQ-img" / "9.jpg").unlink()
    (tmp_path / PARTITION).write_text("162770.jpg 0\n")
    with pytest.raises(ValueError, match=rf"has no entry in {PARTITION} \(as \d+\.jpg\)"):
        images_of("celeba_hq", tmp_path)


def test_celeba_identity_is_the_group_where_it_is_known(tmp_path: Path) -> None:
    identity = {"identity_CelebA.txt": b"162770.jpg 11\n162771.jpg 12\n182637.jpg 12\n182638.jpg 13\n"}
    images = images_of("celeba_hq", write_folder(tmp_path, MASKED | CELEBA_LISTS | identity))
    assert [image.group for image in images] == ["11", "12", "12", "13"]


def test_celeba_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, MASKED | CELEBA_LISTS | {"data256x256/00001.jpg": jpeg(9)})
    with pytest.raises(ValueError, match="holds CelebA-HQ-img and data256x256, the same pictures; move one away"):
        images_of("celeba_hq", tmp_path)


def test_celeba_parts_are_painted_in_order(tmp_path: Path) -> None:
    root = write_folder(tmp_path, MASKED | CELEBA_LISTS)
    skin, nose, hair = np.zeros((3, 8, 8))
    skin[2:8], nose[4:6, 3:5], hair[:3] = 255, 255, 255
    parts = {"skin": skin, "nose": nose, "hair": hair}
    write_folder(
        root, {f"CelebAMask-HQ-mask-anno/0/00000_{part}.png": label_png(drawn) for part, drawn in parts.items()}
    )
    config = source_config(name="celeba_hq", root=str(root))
    expected = np.ones((8, 8))
    expected[:3], expected[4:6, 3:5] = 13, 2
    key = next(image.key for image in open_source(config).images() if image.labels)
    assert np.array_equal(label_map(config, key), expected)
    assert SOURCES["celeba_hq"].classes[13] == "hair"
    assert all(
        {SOURCES["celeba_hq"].classes[label][0] for label in pair} == {"l", "r"}
        for pair in SOURCES["celeba_hq"].mirrored
    )


def test_celeba_deltas_tool_counts_from_zero_and_tfrecord_numbers_are_not_read(tmp_path: Path) -> None:
    files = pictures(*(f"any/imgHQ{index:05d}.png" for index in ORIGINALS), "any/img00000000.png")
    images = images_of("celeba_hq", write_folder(tmp_path, files | CELEBA_LISTS))
    assert splits_of(images) == {f"imgHQ{n:05d}": s for n, s in enumerate(("train", "val", "val", "test"))}
    write_folder(tmp_path / "shuffled", pictures("img00000000.png") | CELEBA_LISTS)
    with pytest.raises(ValueError, match="holds no pictures of celeba_hq"):
        images_of("celeba_hq", tmp_path / "shuffled")


def test_celeba_first28000_needs_no_list(tmp_path: Path) -> None:
    files = pictures(*(f"CelebA-HQ-img/{index}.jpg" for index in (0, 27_999, 28_000, 29_999)))
    images = images_of("celeba_hq", write_folder(tmp_path, files), split_list="first28000")
    assert splits_of(images) == {"0": "train", "27999": "train", "28000": "val", "29999": "val"}
    write_folder(tmp_path, {"CelebA-HQ-img/30000.jpg": jpeg(9)})
    with pytest.raises(ValueError, match=r"CelebA-HQ-img/30000\.jpg has no entry in 0\.\.29999"):
        images_of("celeba_hq", tmp_path, split_list="first28000")
    renamed = pictures(*(f"data256x256/{index + 1:05d}.jpg" for index in (27_999, 28_000)))
    images = images_of("celeba_hq", write_zip(tmp_path / "renamed.zip", renamed), split_list="first28000")
    assert splits_of(images) == {"28000": "train", "28001": "val"}


@pytest.mark.parametrize("form", ["CelebA-HQ-img/{}.jpg", "data256x256/{:05d}.jpg"])
def test_celeba_lama_lists_count_from_zero_in_both_forms(tmp_path: Path, form: str) -> None:
    shift = 1 if "256" in form else 0
    files = pictures(*(form.format(index + shift) for index in (0, 7, 29_999)))
    lists = {"train_shuffled.flist": b"7.jpg\n29999.jpg\n", "val_shuffled.flist": b"0.jpg\n"}
    for name in lists:
        root = write_folder(tmp_path / f"no {name}", files | {n: c for n, c in lists.items() if n != name})
        with pytest.raises(ValueError, match=f"{name} is missing, so no picture has a split"):
            images_of("celeba_hq", root, split_list="lama")
    source = open_source(
        source_config(name="celeba_hq", root=str(write_folder(tmp_path / "all", files | lists)), split_list="lama")
    )
    assert {int(key) - shift: split for key, split in splits_of(source.images()).items()} == {
        0: "val", 7: "train", 29_999: "train"
    }  # fmt: skip
    assert source.parameters()["split_list"] == "lama"
    assert set(source.parameters()["list_files"]) == set(lists)


def test_celeba_lama_script_leaves_a_third_list(tmp_path: Path) -> None:
    lists = {
        "train_shuffled.flist": b"2.jpg\n",
        "val_shuffled.flist": b"1.jpg\n3.jpg\n",
        "visual_test_shuffled.flist": b"0.jpg\n",
    }
    root = write_folder(tmp_path, MASKED | lists)
    splits = splits_of(images_of("celeba_hq", root, split_list="lama"))
    assert splits == {"0": "test", "1": "val", "2": "train", "3": "val"}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "0.jpg\n2.jpg\n",
            r"0\.jpg is in train_shuffled\.flist and in val_shuffled\.flist; are they of one",
        ),
        ("zero.jpg\n", r"train_shuffled\.flist has the line 'zero\.jpg'; expected such as 12345\.jpg"),
        ("2.jpg 3.jpg\n", r"train_shuffled\.flist has the line '2\.jpg 3\.jpg'; expected"),
        ("2.jpg\n", r"CelebA-HQ-img/3\.jpg has no entry in train_shuffled\.flist, .* \(as 3\.jpg\)"),
    ],
)
def test_celeba_bad_lama_lists_are_named(tmp_path: Path, train: str, message: str) -> None:
    lists = {"train_shuffled.flist": train.encode(), "val_shuffled.flist": b"0.jpg\n1.jpg\n"}
    with pytest.raises(ValueError, match=message):
        images_of("celeba_hq", write_folder(tmp_path, MASKED | lists), split_list="lama")


def test_celeba_unknown_part_is_named() -> None:
    with pytest.raises(ValueError, match="celeba_hq: beard is no facial region of CelebAMask-HQ"):
        SOURCES["celeba_hq"].label_map({"CelebAMask-HQ-mask-anno/0/00000_beard.png": np.zeros((2, 2), np.uint8)})
