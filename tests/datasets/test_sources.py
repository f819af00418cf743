import io
import itertools
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.archives import ArchiveError, read
from datasets.decode import RejectedImageError, decode, decode_grey, fit
from datasets.sources import SOURCES, SourceConfig, SourceImage, open_source, source_key


def _jpeg(number: int) -> bytes:
    """A small picture that differs from every other number's."""
    array = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).resize((20, 20)).save(buffer, "JPEG")
    return buffer.getvalue()


def _pictures(*names: str) -> dict[str, bytes]:
    return {name: _jpeg(number) for number, name in enumerate(names)}


def _write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _write_gzip_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    return _write_tar(path, files, "w:gz")


# The last one is a plain tar under a wrong name
FORMS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "tree": _write_folder,
    "a.zip": _write_zip,
    "a.tar": _write_tar,
    "a.tgz": _write_gzip_tar,
    "plain.tar.gz": _write_tar,
}


def _images(name: str, root: Path | None, **config: object) -> list[SourceImage]:
    return open_source(SourceConfig(name=name, root=None if root is None else str(root), **config)).images()


def _splits(images: list[SourceImage]) -> dict[str, str]:
    return {image.key: image.split for image in images}


def _labels(images: list[SourceImage]) -> dict[str, str | None]:
    return {image.key: image.label for image in images}


def _described(images: list[SourceImage]) -> list[tuple[object, ...]]:
    """All of each picture but where it lies, and its bytes."""
    return [(i.name, i.key, i.split, i.label, i.group, i.crop, read(i.locator)) for i in images]


# Names, keys and cards


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
    ],
)
def test_key_holds_no_dot_and_comes_from_the_name(name: str, key: str) -> None:
    assert source_key(name) == key


def test_unknown_data_set_and_bad_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="'places' is not a data set; did you mean places2"):
        open_source(SourceConfig(name="places"))
    with pytest.raises(ValueError, match="there are photos, folder, places2, celeba_hq"):
        open_source(SourceConfig(name="?"))
    with pytest.raises(ValueError, match="val_share must lie between 0 and 1, got 10"):
        SourceConfig(val_share=10)
    with pytest.raises(ValueError, match='variant must be "small" or "large", got \'256\''):
        SourceConfig(variant="256")
    with pytest.raises(ValueError, match="split_list must be \"celeba\", got 'lama'"):
        SourceConfig(split_list="lama")


def test_every_data_set_has_a_card_and_says_when_its_root_is_missing(tmp_path: Path) -> None:
    for name, source in SOURCES.items():
        assert source.card.name == name
        assert source.card.licence
        if name == "photos":
            continue
        with pytest.raises(ValueError, match=f"{name} needs root, the path of: "):
            _images(name, None)
        with pytest.raises(ArchiveError, match="does not exist"):
            _images(name, tmp_path / "nowhere")


# photos


def test_photos_are_nine_photographs_in_441_squares() -> None:
    images = _images("photos", None)
    assert len(images) == 9 * 49
    assert Counter(image.split for image in images) == SOURCES["photos"].card.counts
    assert Counter(Counter(image.group for image in images).values()) == {49: 9}
    assert [image.key for image in images] == sorted({image.key for image in images})
    assert images[0].key == "astronaut/r0c0"


def test_no_photograph_is_in_two_splits() -> None:
    splits: dict[str | None, set[str]] = {}
    for image in _images("photos", None):
        splits.setdefault(image.group, set()).add(image.split)
    assert {group for group, found in splits.items() if found == {"val"}} == {"chelsea", "flower"}
    assert all(len(found) == 1 for found in splits.values())


def test_squares_span_the_photograph_and_overlap() -> None:
    images = [image for image in _images("photos", None) if image.group == "chelsea"]
    photograph = decode(read(images[0].locator))
    assert photograph.shape == (300, 451, 3)
    assert images[0].crop == (0, 0, 150, 150)
    assert images[-1].crop == (301, 150, 451, 300)
    assert images[1].crop == (50, 0, 200, 150)
    assert len({image.crop for image in images}) == 49
    assert all(fit(photograph, 128, "crop", image.crop).shape == (128, 128, 3) for image in images)


def test_photos_are_colour_and_found_without_importing_their_packages() -> None:
    script = (
        "import sys; from datasets.sources import SourceConfig, open_source;"
        "images = open_source(SourceConfig()).images();"
        "print(len(images), 'skimage' in sys.modules, 'sklearn' in sys.modules, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["441", "False", "False", "False"]
    for locator in {image.locator for image in _images("photos", None)}:
        photograph = decode(read(locator)).astype(int)
        assert np.abs(photograph[..., 0] - photograph[..., 2]).mean() > 2


def test_photos_refuse_a_root() -> None:
    with pytest.raises(ValueError, match=r"photos takes no root, got /x; did you mean name: folder\?"):
        _images("photos", Path("/x"))


def test_source_images_are_picklable_and_small() -> None:
    images = _images("photos", None)
    assert pickle.loads(pickle.dumps(images)) == images
    assert len(pickle.dumps(images)) < 100 * len(images)


# folder


def test_folder_zip_and_tars_give_the_same_pictures(tmp_path: Path) -> None:
    files = _pictures("b/2.jpg", "b/1.JPG", "B/1.jpeg", "a b/1.jpg", "ä.jpg", "z.jpg") | {"README.txt": b"no picture"}
    described = [_described(_images("folder", write(tmp_path / form, files))) for form, write in FORMS.items()]
    assert len(described[0]) == 6
    assert all(other == described[0] for other in described)


def test_archive_in_a_folder_counts_as_unpacked_there(tmp_path: Path) -> None:
    files = _pictures("train/1.jpg", "train/2.jpg", "val/3.jpg")
    expected = _described(_images("folder", _write_folder(tmp_path / "tree", files)))
    parts = [{name: content} for name, content in files.items()]
    _write_zip(tmp_path / "parts" / "1.zip", parts[0])
    _write_gzip_tar(tmp_path / "parts" / "2", parts[1])
    _write_folder(tmp_path / "parts", parts[2])
    assert _described(_images("folder", tmp_path / "parts")) == expected
    _write_tar(tmp_path / "parts" / "copy.tar", parts[2])
    with pytest.raises(ValueError, match=r"val/3\.jpg lies both in .*/parts and in .*/parts/copy\.tar; move one away"):
        _images("folder", tmp_path / "parts")


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "Val"])
def test_split_folders_are_used(tmp_path: Path, val: str) -> None:
    root = _write_folder(tmp_path, _pictures("train/cat/1.jpg", "train/2.jpg", f"{val}/cat/1.jpg"))
    images = _images("folder", root)
    assert _splits(images) == {"train/cat/1": "train", "train/2": "train", f"{val}/cat/1": "val"}
    assert _labels(images) == {"train/cat/1": "cat", "train/2": None, f"{val}/cat/1": "cat"}


def test_test_folder_stays_test_beside_val(tmp_path: Path) -> None:
    images = _images("folder", _write_folder(tmp_path, _pictures("train/1.jpg", "val/1.jpg", "test/1.jpg")))
    assert _splits(images) == {"train/1": "train", "val/1": "val", "test/1": "test"}


def test_split_folders_inside_one_enclosing_folder_are_used(tmp_path: Path) -> None:
    root = _write_zip(tmp_path / "a.zip", _pictures("mine/v1/train/cat/1.jpg", "mine/v1/val/cat/1.jpg"))
    images = _images("folder", root)
    assert _splits(images) == {"mine/v1/train/cat/1": "train", "mine/v1/val/cat/1": "val"}
    assert set(_labels(images).values()) == {"cat"}


def test_picture_outside_the_split_folders_and_two_val_folders_are_named(tmp_path: Path) -> None:
    root = _write_folder(tmp_path, _pictures("train/1.jpg", "val/1.jpg", "extra/1.jpg"))
    with pytest.raises(ValueError, match=r"extra/1\.jpg lies in none of train, val; move it into one, or away"):
        _images("folder", root)
    _write_folder(tmp_path, _pictures("valid/1.jpg"))
    with pytest.raises(ValueError, match="train, val, valid name one split twice"):
        _images("folder", root)


def test_only_images_are_read_where_masks_lie_beside_them(tmp_path: Path) -> None:
    flat = _pictures("images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2.png", "cover.jpg")
    images = _images("folder", _write_folder(tmp_path / "flat", flat))
    assert list(_splits(images)) == ["images/1", "images/2"]
    assert set(_labels(images).values()) == {None}
    split = _pictures(*(f"{s}/{kind}/1.jpg" for s in ("train", "val") for kind in ("images", "masks")))
    assert _splits(_images("folder", _write_folder(tmp_path / "split", split))) == {
        "train/images/1": "train",
        "val/images/1": "val",
    }
    outer = _pictures(*(f"{kind}/{s}/1.jpg" for s in ("train", "val") for kind in ("images", "masks")))
    assert _splits(_images("folder", _write_folder(tmp_path / "outer", outer))) == {
        "images/train/1": "train",
        "images/val/1": "val",
    }


def test_hash_split_has_the_share_and_moves_no_picture_when_others_go(tmp_path: Path) -> None:
    files = dict.fromkeys((f"{number:04d}.jpg" for number in range(600)), b"listed, never decoded")
    before = _splits(_images("folder", _write_zip(tmp_path / "a.zip", files), val_share=0.25))
    assert 0.2 < Counter(before.values())["val"] / 600 < 0.3
    fewer = dict(itertools.islice(files.items(), 0, None, 3))
    after = _splits(_images("folder", _write_zip(tmp_path / "b.zip", fewer), val_share=0.25))
    assert len(after) == 200
    assert after.items() <= before.items()


@pytest.mark.parametrize("val_share", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("num_images", [2, 5])
def test_neither_split_of_a_small_folder_is_empty(tmp_path: Path, val_share: float, num_images: int) -> None:
    root = _write_folder(tmp_path, _pictures(*(f"{number}.jpg" for number in range(num_images))))
    counts = Counter(image.split for image in _images("folder", root, val_share=val_share))
    assert min(counts["train"], counts["val"]) == 1
    assert counts.total() == num_images


def test_fewer_than_two_pictures_are_an_error(tmp_path: Path) -> None:
    root = _write_folder(tmp_path, _pictures("images/1.jpg", "masks/1.jpg"))
    with pytest.raises(ValueError, match="holds 1 pictures; folder needs 2"):
        _images("folder", root)


@pytest.mark.parametrize("other", ["a/1.png", "a/1.JPG"])
def test_two_sources_of_one_key_are_both_named(tmp_path: Path, other: str) -> None:
    root = _write_folder(tmp_path, _pictures("a/1.jpg", other, "a/2.jpg"))
    with pytest.raises(ValueError, match=r"a/1\.(jpg|png|JPG) and a/1\.(jpg|png|JPG) both have the key a/1; rename"):
        _images("folder", root)


def test_other_image_formats_are_listed_so_that_they_are_counted_as_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "WEBP")
    root = _write_folder(tmp_path, _pictures("1.jpg", "2.jpg") | {"3.webp": buffer.getvalue()})
    images = _images("folder", root)
    assert list(_splits(images)) == ["1", "2", "3"]
    with pytest.raises(RejectedImageError, match="not a JPEG or PNG image"):
        decode(read(images[2].locator))


# places2

PLACES_TRAIN = _pictures(
    "a/airfield/00000001.jpg",
    "a/airfield/00000002.jpg",
    "b/balcony/exterior/00000001.jpg",
    "f/field/wild/00000001.jpg",
)
PLACES_VAL = _pictures("Places365_val_00000001.jpg", "Places365_val_00000002.jpg")
PLACES_LISTS = {
    "categories_places365.txt": b"/a/airfield 0\n/b/balcony/exterior 1\n/f/field/wild 2\n",
    "places365_val.txt": b"Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 0\n",
}


def _under(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _official_places(path: Path, train: str = "data_256", val: str = "val_256") -> Path:
    return _write_folder(path, _under(train, PLACES_TRAIN) | _under(val, PLACES_VAL) | PLACES_LISTS)


def test_places_class_is_the_whole_path_after_the_letter(tmp_path: Path) -> None:
    images = _images("places2", _official_places(tmp_path))
    assert _labels(images) == {
        "Places365_val_00000001": "field/wild",
        "Places365_val_00000002": "airfield",
        "a/airfield/00000001": "airfield",
        "a/airfield/00000002": "airfield",
        "b/balcony/exterior/00000001": "balcony/exterior",
        "f/field/wild/00000001": "field/wild",
    }
    assert Counter(_splits(images).values()) == {"train": 4, "val": 2}


def test_places_same_base_name_in_two_classes_gives_two_records(tmp_path: Path) -> None:
    images = _images("places2", _official_places(tmp_path))
    same = [image for image in images if image.name.endswith("/00000001.jpg")]
    assert len({image.key for image in same}) == len({read(image.locator) for image in same}) == 3


def test_places_archives_and_trees_give_the_same_pictures(tmp_path: Path) -> None:
    expected = _images("places2", _official_places(tmp_path / "tree"))
    archives = tmp_path / "archives"
    _write_tar(archives / "train_256_places365standard.tar", _under("data_256", PLACES_TRAIN))
    _write_tar(archives / "val_256.tar", _under("val_256", PLACES_VAL))
    _write_tar(archives / "filelist_places365-standard.tar", PLACES_LISTS)
    assert _described(_images("places2", archives)) == _described(expected)
    renamed = _images("places2", _official_places(tmp_path / "renamed", train="data_256_standard"))
    assert [(i.key, i.split, i.label) for i in renamed] == [(i.key, i.split, i.label) for i in expected]
    alone = _images("places2", archives / "train_256_places365standard.tar")
    assert _described(alone) == [row for row in _described(expected) if row[2] == "train"]


def test_places_variant_picks_the_files_and_skips_the_other_archives(tmp_path: Path) -> None:
    _official_places(tmp_path)
    large = _under("data_large", {"a/abbey/00000001.jpg": _jpeg(77)})
    _write_tar(tmp_path / "train_large_places365standard.tar", large)
    (tmp_path / "val_large.tar").write_bytes(_write_tar(tmp_path / "x", PLACES_VAL).read_bytes()[:700])  # cut
    (tmp_path / "x").unlink()
    assert len(_images("places2", tmp_path)) == 6
    with pytest.raises(ArchiveError, match=r"val_large\.tar: .* than there can be"):
        _images("places2", tmp_path, variant="large")
    (tmp_path / "val_large.tar").unlink()
    assert _labels(_images("places2", tmp_path, variant="large")) == {"a/abbey/00000001": "abbey"}


def test_places_easy_format(tmp_path: Path) -> None:
    files = _pictures("train/airfield/00000001.jpg", "train/field/wild/00000001.jpg", "val/airfield/x.jpg")
    for root in (
        _write_folder(tmp_path / "tree", files),
        _write_tar(tmp_path / "places365standard_easyformat.tar", _under("places365_standard", files)),
    ):
        images = _images("places2", root)
        assert _labels(images) == {
            "train/airfield/00000001": "airfield",
            "train/field/wild/00000001": "field/wild",
            "val/airfield/x": "airfield",
        }
        assert Counter(_splits(images).values()) == {"train": 2, "val": 1}


@pytest.mark.parametrize(
    "second", ["data_256_challenge/a/abbey/1.jpg", "train/airfield/1.jpg", "data_256/a/abbey/1.jpg"]
)
def test_places_editions_are_never_mixed(tmp_path: Path, second: str) -> None:
    _official_places(tmp_path, train="data_256_standard")
    _write_folder(tmp_path, {second: _jpeg(9)})
    with pytest.raises(ValueError, match=r"has train twice, as .* and as .* never mixed"):
        _images("places2", tmp_path)


def test_places_standard_and_challenge_archives_are_never_mixed(tmp_path: Path) -> None:
    _write_tar(tmp_path / "train_256_places365standard.tar", _under("data_256", PLACES_TRAIN))
    _write_tar(tmp_path / "train_256_places365challenge.tar", {"data_256/a/abbey/00000009.jpg": _jpeg(9)})
    with pytest.raises(ValueError, match=r"has train twice, as (standard and as challenge|challenge and as standard)"):
        _images("places2", tmp_path)


def test_places_works_without_lists_and_names_bad_ones(tmp_path: Path) -> None:
    _official_places(tmp_path)
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n")
    with pytest.raises(ValueError, match=r"places365_val\.txt and categories_places365\.txt do not match"):
        _images("places2", tmp_path)
    (tmp_path / "places365_val.txt").unlink()
    assert _labels(_images("places2", tmp_path))["Places365_val_00000001"] is None


def test_places_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no pictures of places2 \(variant large\); expected train_256_places"):
        _images("places2", _official_places(tmp_path), variant="large")


# celeba_hq

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
MASKED = _pictures(*(f"CelebA-HQ-img/{index}.jpg" for index in ORIGINALS))


def test_celeba_split_joins_by_file_name_at_both_limits(tmp_path: Path) -> None:
    images = _images("celeba_hq", _write_folder(tmp_path, MASKED | CELEBA_LISTS))
    assert _splits(images) == {"0": "train", "1": "val", "2": "val", "3": "test"}
    assert {image.group for image in images} == {None}


def test_celeba_renamed_files_count_from_one(tmp_path: Path) -> None:
    files = _pictures(*(f"data256x256/{index + 1:05d}.jpg" for index in ORIGINALS))
    images = _images("celeba_hq", _write_folder(tmp_path, files | CELEBA_LISTS))
    assert _splits(images) == {"00001": "train", "00002": "val", "00003": "val", "00004": "test"}


def test_celeba_tree_zip_and_zip_in_a_folder_give_the_same_pictures(tmp_path: Path) -> None:
    """The official zip holds the mapping and never the partition, which belongs to CelebA: it lies beside the zip."""
    masks = _under("CelebAMask-HQ-mask-anno/0", _pictures("00000_hair.png", "00000_skin.png"))
    inside = _under("CelebAMask-HQ", MASKED | masks | {MAPPING: CELEBA_LISTS[MAPPING]})
    outside = {PARTITION: CELEBA_LISTS[PARTITION]}
    expected = _described(_images("celeba_hq", _write_folder(tmp_path / "tree", inside | outside)))
    assert len(expected) == 4
    zipped = _write_zip(tmp_path / "zipped" / "CelebAMask-HQ.zip", inside)
    with pytest.raises(ValueError, match=rf"{PARTITION} is missing, so no picture has a split; put it into .*/zipped$"):
        _images("celeba_hq", zipped)
    _write_folder(zipped.parent, outside)
    assert _described(_images("celeba_hq", zipped)) == expected
    assert _described(_images("celeba_hq", zipped.parent)) == expected


@pytest.mark.parametrize("missing", [MAPPING, PARTITION])
def test_celeba_missing_list_is_named_with_its_place(tmp_path: Path, missing: str) -> None:
    _write_folder(tmp_path, MASKED | CELEBA_LISTS)
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"{missing} is missing, so no picture has a split; put it into {tmp_path}"):
        _images("celeba_hq", tmp_path)


def test_celeba_picture_outside_the_lists_is_named(tmp_path: Path) -> None:
    _write_folder(tmp_path, MASKED | CELEBA_LISTS | {"CelebA-HQ-img/9.jpg": _jpeg(9)})
    with pytest.raises(ValueError, match=rf"CelebA-HQ-img/9\.jpg has no entry in {MAPPING}"):
        _images("celeba_hq", tmp_path)
    (tmp_path / "CelebA-HQ-img" / "9.jpg").unlink()
    (tmp_path / PARTITION).write_text("162770.jpg 0\n")
    with pytest.raises(ValueError, match=rf"has no entry in {PARTITION} \(as \d+\.jpg\)"):
        _images("celeba_hq", tmp_path)


def test_celeba_identity_is_the_group_where_it_is_known(tmp_path: Path) -> None:
    identity = {"identity_CelebA.txt": b"162770.jpg 11\n162771.jpg 12\n182637.jpg 12\n182638.jpg 13\n"}
    images = _images("celeba_hq", _write_folder(tmp_path, MASKED | CELEBA_LISTS | identity))
    assert [image.group for image in images] == ["11", "12", "12", "13"]


def test_celeba_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    _write_folder(tmp_path, MASKED | CELEBA_LISTS | {"data256x256/00001.jpg": _jpeg(9)})
    with pytest.raises(ValueError, match="holds CelebA-HQ-img and data256x256, the same pictures; move one away"):
        _images("celeba_hq", tmp_path)


def _label_png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _label_map(config: SourceConfig, key: str) -> np.ndarray:
    source = open_source(config)
    (image,) = (image for image in source.images() if image.key == key)
    return source.label_map({locator.member: decode_grey(read(locator)) for locator in image.labels})


def test_celeba_parts_are_painted_in_order(tmp_path: Path) -> None:
    root = _write_folder(tmp_path, MASKED | CELEBA_LISTS)
    skin, nose, hair = np.zeros((3, 8, 8))
    skin[2:8], nose[4:6, 3:5], hair[:3] = 255, 255, 255
    parts = {"skin": skin, "nose": nose, "hair": hair}
    _write_folder(
        root, {f"CelebAMask-HQ-mask-anno/0/00000_{part}.png": _label_png(drawn) for part, drawn in parts.items()}
    )
    config = SourceConfig(name="celeba_hq", root=str(root))
    expected = np.ones((8, 8))
    expected[:3], expected[4:6, 3:5] = 13, 2
    key = next(image.key for image in open_source(config).images() if image.labels)
    assert np.array_equal(_label_map(config, key), expected)
    assert SOURCES["celeba_hq"].classes[13] == "hair"
    assert all(
        {SOURCES["celeba_hq"].classes[label][0] for label in pair} == {"l", "r"}
        for pair in SOURCES["celeba_hq"].mirrored
    )


def test_outdoor_scenes_pair_pictures_with_labels_across_trees_and_zips(tmp_path: Path) -> None:
    labels = np.array([[0, 7, 8], [255, 3, 1]])
    train = {"OutdoorSeg_img/a.png": _jpeg(0), "OutdoorSeg_img/b.jpg": _jpeg(1)}
    _write_zip(tmp_path / "OutdoorSeg_img.zip", train)
    _write_zip(tmp_path / "OutdoorSeg_anno.zip", {"OutdoorSeg_anno/a.png": _label_png(labels)})
    _write_folder(tmp_path, {"OST300_img/x.png": _jpeg(2), "OST300_anno/x.png": _label_png(labels)})
    config = SourceConfig(name="outdoor_scenes", root=str(tmp_path))
    found = {image.name: (image.split, len(image.labels)) for image in open_source(config).images()}
    assert found == {
        "OutdoorSeg_img/a.png": ("train", 1), "OutdoorSeg_img/b.jpg": ("train", 0), "OST300_img/x.png": ("test", 1)
    }  # fmt: skip
    assert np.array_equal(_label_map(config, source_key("OutdoorSeg_img/a.png")), [[0, 7, 255], [255, 3, 1]])


def test_cityscapes_has_nineteen_classes_and_void(tmp_path: Path) -> None:
    files = {
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png": _jpeg(0),
        "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png": _label_png(
            np.array([[7, 33, 0], [26, 255, 9]])
        ),
        "gtFine/train/aachen/aachen_000000_000019_gtFine_color.png": _jpeg(1),
        "leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png": _jpeg(2),
        "gtFine/test/bonn/bonn_000000_000019_gtFine_labelIds.png": _label_png(np.zeros((2, 3))),
    }
    config = SourceConfig(name="cityscapes", root=str(_write_folder(tmp_path, files)))
    images = {image.split: image for image in open_source(config).images()}
    assert set(images) == {"train", "test"}
    assert images["train"].group == "aachen"
    assert not images["test"].labels
    assert np.array_equal(_label_map(config, images["train"].key), [[0, 18, 19], [13, 19, 19]])
    classes = SOURCES["cityscapes"].classes
    assert (classes[0], classes[13], classes[18], len(classes)) == ("road", "car", "bicycle", 20)


def test_ade20k_other_is_not_known(tmp_path: Path) -> None:
    files = {
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg": _jpeg(0),
        "ADEChallengeData2016/annotations/training/ADE_train_00000001.png": _label_png(np.array([[0, 1, 150]])),
        "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg": _jpeg(1),
        "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png": _label_png(np.array([[2]])),
    }
    config = SourceConfig(name="ade20k", root=str(_write_zip(tmp_path / "ADEChallengeData2016.zip", files)))
    assert [image.split for image in open_source(config).images()] == ["train", "val"]
    assert np.array_equal(_label_map(config, "training/ADE_train_00000001"), [[255, 0, 149]])
    assert len(SOURCES["ade20k"].classes) == 150
