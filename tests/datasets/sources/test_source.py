"""What holds for every data set."""

import dataclasses
import hashlib
import itertools
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest

import datasets.sources
from datasets.sources import SOURCES, Source, SourceConfig, SourceImage, named, open_source, source_config, source_key
from files.archives import ArchiveError, read
from files.errors import UserError
from tests.datasets.sources.trees import FORMS, images_of, jpeg, label_png, pictures, under, write_folder, write_zip

PARTITION = {"list_eval_partition.txt": b"000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"}
MAPPING = {
    "CelebA-HQ-to-CelebA-mapping.txt": b"idx orig_idx orig_file\n0 0 000001.jpg\n1 1 000002.jpg\n2 2 000003.jpg\n"
}
IDENTITY = {"identity_CelebA.txt": b"000001.jpg 7\n000002.jpg 8\n000003.jpg 9\n"}
WNIDS = ("n01440764", "n01443537")
PARIS = ("48.842502_2.344968_90_-004", "48.842502_2.344968_270_-004", "48.9_2.1_0_000", "48.9_2.2_0_000")
MASK = label_png(np.ones((4, 4)))

# A small tree of each data set, with the options that it needs
EXAMPLES: dict[str, tuple[dict[str, bytes], dict[str, object]]] = {
    "folder": (pictures("b/2.jpg", "b/1.JPG", "B/1.jpeg", "a b/1.jpg", "ä.jpg", "z.jpg"), {}),
    "places2": (
        pictures("data_256/a/airfield/00000001.jpg", "data_256/f/field/wild/00000001.jpg")
        | pictures("val_256/Places365_val_00000001.jpg", "test_256/Places365_test_00000001.jpg")
        | {"categories_places365.txt": b"/a/airfield 0\n/f/field/wild 1\n"}
        | {"places365_val.txt": b"Places365_val_00000001.jpg 1\n"},
        {},
    ),
    "celeba": (pictures(*(f"img_align_celeba/{n:06d}.jpg" for n in (1, 2, 3))) | PARTITION | IDENTITY, {}),
    "celeba_hq": (
        pictures(*(f"CelebAMask-HQ/CelebA-HQ-img/{n}.jpg" for n in range(3)))
        | {"CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/00002_hair.png": MASK}
        | MAPPING
        | PARTITION
        | IDENTITY,
        {},
    ),
    "paris_streetview": (
        pictures(*(f"paris_train_original/{name}.JPG" for name in PARIS))
        | pictures("paris_eval/paris_eval_gt/001_im.png", "paris_eval/paris_eval_corrupted/001_im.png"),
        {"val_share": 0.4},
    ),
    "dtd": (
        pictures(*(f"dtd/images/{c}/{c}_000{n}.jpg" for c in ("banded", "woven") for n in (1, 2, 3)))
        | {
            f"dtd/labels/{split}2.txt": f"banded/banded_000{n}.jpg\nwoven/woven_000{n}.jpg\n".encode()
            for n, split in enumerate(("train", "val", "test"), start=1)
        },
        {"split_number": 2},
    ),
    "imagenet": (
        pictures(*(f"train/{wnid}/{wnid}_{n}.JPEG" for wnid in WNIDS for n in (1, 20)))
        | pictures(f"val/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG"),
        {},
    ),
    "outdoor_scenes": (
        pictures("OutdoorSeg/img/a.png", "OutdoorSeg/img/b.jpg", "OST300/img/a.png")
        | {"OutdoorSeg/anno/a.png": MASK, "OST300/anno/a.png": MASK},
        {},
    ),
    "cityscapes": (
        pictures("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")
        | pictures("leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png")
        | {"gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png": MASK},
        {},
    ),
    "ade20k": (
        pictures("A/images/training/ADE_train_00000001.jpg", "A/images/validation/ADE_val_00000001.jpg")
        | {"A/annotations/training/ADE_train_00000001.png": MASK},
        {},
    ),
}
LITTER = {"README.txt": b"no picture", ".hidden/1.jpg": b"1", "__MACOSX/._1.jpg": b"1", "Thumbs.db": b"1"}


def _opened(name: str, root: Path, **config: object) -> Source:
    return open_source(source_config(name=name, root=str(root), **{**EXAMPLES[name][1], **config}))


def _all_but_place(image: SourceImage) -> tuple[object, ...]:
    """All of a picture but where it lies, and its bytes and those of its labels."""
    contents = tuple(sorted(read(locator) for locator in image.labels))
    return (image.name, image.key, image.split, image.label, image.group, image.crop, read(image.locator), contents)


def test_every_data_set_has_an_example() -> None:
    assert EXAMPLES.keys() == SOURCES.keys() - {"photos"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_folder_zip_and_tars_give_the_same_pictures_and_lists(tmp_path: Path, name: str) -> None:
    """In any order of members, and in a folder beside nothing else."""
    files = list((EXAMPLES[name][0] | LITTER).items())
    random.Random(0).shuffle(files)
    expected, parameters = None, None
    for form, write in FORMS.items():
        root = write(tmp_path / form, dict(files))
        inside = write(tmp_path / f"in {form}" / form, dict(files)).parent if form != "tree" else root
        for source in (_opened(name, root), _opened(name, inside)):
            found = [_all_but_place(image) for image in source.images()]
            assert expected in (None, found), form
            assert parameters in (None, source.parameters()), form
            expected, parameters = found, source.parameters()
    assert len({row[1] for row in expected}) == len({row[6] for row in expected}) > 1
    assert [row[1] for row in expected] == sorted(row[1] for row in expected)
    assert {row[2] for row in expected} <= set(SOURCES[name].card.splits)
    assert any(row[7] for row in expected) == bool(SOURCES[name].classes)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_group_stands_in_two_splits(tmp_path: Path, name: str) -> None:
    images = _opened(name, write_folder(tmp_path, EXAMPLES[name][0])).images()
    splits = {(image.group, image.split) for image in images if image.group}
    assert len({group for group, _ in splits}) == len(splits)


@pytest.mark.parametrize("name", EXAMPLES)
def test_splits_that_are_not_wanted_are_left_out(tmp_path: Path, name: str) -> None:
    root = write_folder(tmp_path, EXAMPLES[name][0])
    everything = _opened(name, root).images()
    found = []
    for split in ("test", "val", "train"):
        if any(image.split == split for image in everything):
            part = _opened(name, root, splits=(split,)).images()
            assert {image.split for image in part} == {split}
            found += part
        else:
            with pytest.raises(ValueError, match=rf"holds no pictures of {name} in {split}; expected "):
                _opened(name, root, splits=(split,)).images()
    assert sorted(found, key=lambda image: image.key) == everything


@pytest.mark.parametrize("name", EXAMPLES)
def test_lists_that_were_read_are_named_with_their_digest(tmp_path: Path, name: str) -> None:
    files, options = EXAMPLES[name]
    source = _opened(name, write_folder(tmp_path, files))
    source.images()
    lists = {path: content for path, content in files.items() if path.endswith(".txt")}
    digests = {path.rpartition("/")[2]: hashlib.sha256(content).hexdigest() for path, content in lists.items()}
    assert source.parameters().get("list_files", {}) == digests
    assert source.parameters().items() >= options.items()
    for path in lists:
        (tmp_path / path).write_bytes(files[path] + b"\n")
        again = _opened(name, tmp_path)
        again.images()
        changed = {file for file, digest in again.parameters()["list_files"].items() if digest != digests[file]}
        assert changed == {path.rpartition("/")[2]}
        (tmp_path / path).write_bytes(files[path])


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"folder"}))
def test_pictures_of_something_else_are_an_error_that_says_what_is_expected(tmp_path: Path, name: str) -> None:
    root = write_folder(tmp_path, {"holiday/a.jpg": jpeg(0), "b.jpg": jpeg(1)})
    with pytest.raises(ValueError, match=r"holds no pictures of .*; expected ") as error:
        images_of(name, root)
    assert SOURCES[name].card.layout in str(error.value)


def test_pictures_are_small_when_pickled(tmp_path: Path) -> None:
    for name, (files, _) in EXAMPLES.items():
        for image in _opened(name, write_zip(tmp_path / f"{name}.zip", files)).images():
            assert pickle.loads(pickle.dumps(image)) == image
            assert len(pickle.dumps(image)) < 1000


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/b.c.jpg", "a/b-c"),
        ("48.842502_2.344968_90_-004.JPG", "48-842502_2-344968_90_-004"),
        ("48.842502_2.344968_91_-004.JPG", "48-842502_2-344968_91_-004"),
        ("IMG 001 (2).jpeg", "IMG-001--282-29"),
        ("café/1.png", "caf-c3a9/1"),
        ("_private/_1.jpg", "x_private/_1"),
        ("a/_1.jpg", "a/_1"),
        ("no-suffix", "no-suffix"),
        ("a/.jpg", "a/-jpg"),
        ("a.b/no-suffix", "a-b/no-suffix"),
        ("ends-in.", "ends-in-"),
    ],
)
def test_key_holds_no_dot_and_comes_from_the_name(name: str, key: str) -> None:
    assert source_key(name) == key


def test_unknown_data_set_and_bad_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="'places' is not a data set; did you mean places2"):
        open_source(SourceConfig(name="places"))
    with pytest.raises(ValueError, match="'celebahq' is not a data set; did you mean celeba_hq"):
        named("celebahq")
    with pytest.raises(ValueError, match=f"there are {', '.join(SOURCES)}"):
        source_config("?")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("folder", {"val_share": 10}, "val_share must be between 0 and 1, got 10"),
        ("paris_streetview", {"val_share": 0.0}, "val_share must be between 0 and 1, got 0.0"),
        ("places2", {"variant": "256"}, 'variant must be "small" or "large", got \'256\''),
        ("places2", {"edition": "Standard"}, 'edition must be "standard" or "challenge", got \'Standard\''),
        ("celeba_hq", {"split_list": "random"}, 'must be "celeba", "lama" or "first28000", got \'random\''),
        ("dtd", {"split_number": 0}, "split_number must be in 1..10, got 0"),
        ("dtd", {"split_number": 11}, "split_number must be in 1..10, got 11"),
        *(
            (name, {"splits": splits}, message)
            for name in ("photos", "folder", "places2", "celeba_hq", "dtd")
            for splits, message in (
                ((), "splits must be some of train, val, test, each once, got ''"),
                (("train", "train"), "each once, got 'train, train'"),
                (("valid",), "splits must be some of train, val, test"),
            )
        ),
    ],
)
def test_bad_options_are_named(name: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        source_config(name, **values)


def test_every_option_belongs_to_a_data_set_and_the_others_refuse_it() -> None:
    changed = {"val_share": 0.5, "edition": "challenge", "variant": "large", "split_list": "lama", "split_number": 3}
    changed["classes"] = ("beach",)
    general = {field.name for field in dataclasses.fields(SourceConfig)}
    assert changed.keys() == {option for source in SOURCES.values() for option in source.card.options}
    for source in SOURCES.values():
        assert source.card.options.keys() == {f.name for f in dataclasses.fields(source.Config)} - general
    for (option, value), (name, source) in itertools.product(changed.items(), SOURCES.items()):
        if option in source.card.options:
            assert open_source(source_config(name, **{option: value})).parameters()[option] == value
        else:
            with pytest.raises(TypeError, match=option):
                source_config(name, **{option: value})


def test_a_config_of_another_data_set_is_refused() -> None:
    with pytest.raises(TypeError, match="dtd needs a DTDConfig, got "):
        open_source(dataclasses.replace(source_config("places2"), name="dtd"))


@pytest.mark.parametrize("name", SOURCES)
def test_a_plain_config_takes_the_defaults_of_the_options(name: str) -> None:
    assert open_source(SourceConfig(name=name, root="/data")).config == source_config(name, root="/data")


def test_the_file_of_a_data_set_has_its_name() -> None:
    assert {name: source.__module__ for name, source in SOURCES.items()} == {
        name: f"datasets.sources.{name}" for name in SOURCES
    }
    files = {path.stem for path in Path(datasets.sources.__file__).parent.glob("*.py")}
    assert files == {*SOURCES, "__init__", "source", "hash_split"}


def test_every_card_is_whole() -> None:
    for name, source in SOURCES.items():
        card = source.card
        assert card.name == name
        assert card.licence
        assert card.layout
        assert set(card.counts) <= set(card.splits) <= {"train", "val", "test"}
        assert all(count > 0 for count in card.counts.values())
        assert ("maps" in card.labels) == bool(source.classes)
        assert all(0 <= label < len(source.classes) for pair in source.mirrored for label in pair)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_other_counts_than_published_are_found_and_the_published_are_not(name: str) -> None:
    source = open_source(source_config(name=name, root="nowhere"))
    published = dict(source.card.counts)
    assert source.unlike_published(published) == {}
    assert source.unlike_published({}) == {}  # a split that is not here is not a short one
    for split, number in published.items():
        assert source.unlike_published({split: number - 1}) == {split: (number - 1, number)}


@pytest.mark.parametrize(
    ("name", "options", "counts", "found"),
    [
        ("places2", {"edition": "challenge"}, {"train": 1_803_460}, {"train": (1_803_460, 8_026_628)}),
        ("places2", {"edition": "challenge"}, {"train": 8_026_628, "val": 36_500}, {}),
        ("celeba_hq", {"split_list": "first28000"}, {"train": 28_000, "val": 2_000}, {}),
        ("celeba_hq", {"split_list": "first28000"}, {"train": 24_183}, {"train": (24_183, 28_000)}),
        ("celeba_hq", {"split_list": "lama"}, {"train": 26_000, "val": 1_999}, {"val": (1_999, 2_000)}),
        ("paris_streetview", {}, {"train": 13_400, "val": 1_500, "test": 100}, {}),
        ("paris_streetview", {}, {"train": 13_400, "val": 1_400}, {"train": (14_800, 14_900)}),
        ("paris_streetview", {"splits": ("train",)}, {"train": 13_400}, {}),
    ],
)
def test_published_counts_follow_the_options(
    name: str, options: dict[str, object], counts: dict[str, int], found: dict[str, tuple[int, int]]
) -> None:
    assert open_source(source_config(name=name, root="nowhere", **options)).unlike_published(counts) == found


def test_every_data_set_says_when_its_root_is_missing(tmp_path: Path) -> None:
    for name in EXAMPLES:
        with pytest.raises(ValueError, match=f"{name} needs root, the path of: "):
            images_of(name, None)
        with pytest.raises(ArchiveError, match="does not exist"):
            images_of(name, tmp_path / "nowhere")


def test_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, EXAMPLES["celeba"][0] | {"list_eval_partition.txt": b"\xff\xfe\x00"})
    with pytest.raises(ValueError, match=r"celeba: list_eval_partition\.txt is not text; fetch it again"):
        images_of("celeba", root)


def test_of_two_lists_of_one_name_the_topmost_counts(tmp_path: Path) -> None:
    """And a file whose name only ends alike is another one."""
    files = EXAMPLES["celeba"][0] | {"old/list_eval_partition.txt": b"000001.jpg 2\n"}
    files |= {"OLD_list_eval_partition.txt": b"000001.jpg 1\n"}
    assert images_of("celeba", write_folder(tmp_path, files))[0].split == "train"
    inside = under("a/b", files)
    inside["a/list_eval_partition.txt"] = b"000001.jpg 1\n000002.jpg 1\n000003.jpg 1\n"
    images = images_of("celeba", write_zip(tmp_path / "x.zip", inside))
    assert {image.split for image in images} == {"val"}


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"photos"}))
def test_a_root_without_the_data_set_is_an_error_of_the_user(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError):
        open_source(source_config(name, root=str(tmp_path))).images()
