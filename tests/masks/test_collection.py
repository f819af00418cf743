"""Masks on the user's disk: the same from every container, pinned, of one polarity, and in their bins."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import write_split
from files.pictures import encode_grey_png
from files.seeds import derive_seed
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig
from masks.collection import MaskCollection, MaskFilesError
from masks.config import MaskConfig, MaskFiles
from masks.drawn import DrawnMasks, draw_mask_in_bin
from masks.hole_ratio import BINS, hole_ratio
from masks.masks import open_masks
from pipeline.suite_masks import RATIO_BINS, SuiteContent
from tests.masks.test_reading import HOLE, READ, REFUSED

MASKS = [
    draw_mask_in_bin(MaskConfig(kind="irregular"), 96, 96, low, high, seed) for _, low, high in BINS for seed in (1, 2)
]


def png(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def write_folder(folder: Path, contents: list[bytes]) -> Path:
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number:05d}.png").write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two masks in each bin, white = hole."""
    return write_folder(tmp_path / "masks", [encode_grey_png(mask * 255) for mask in MASKS])


def digest(files: MaskFiles) -> str:
    """What the run says that the digest must be."""
    with pytest.raises(MaskFilesError, match=r"files\.sha256 is not set; set it to [0-9a-f]{64} ") as error:
        MaskCollection(files)
    return re.search("[0-9a-f]{64}", str(error.value)).group()


def opened(root: Path, **changes) -> MaskCollection:
    files = MaskFiles(root=str(root), **changes)
    return MaskCollection(replace(files, sha256=digest(files)))


def test_containers_and_names_change_nothing(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "masks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"mask/testing_mask_dataset/{path.name}")
    with tarfile.open(tmp_path / "masks.tar", "w") as archive:
        for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
            archive.add(path, f"{number}.PNG")
    expected = opened(folder)
    drawn = [expected.draw(64, 48, seed) for seed in range(20)]
    for name in ("masks.zip", "masks.tar"):
        collection = opened(tmp_path / name)
        assert collection.sha256 == expected.sha256
        np.testing.assert_array_equal([collection.draw(64, 48, seed) for seed in range(20)], drawn)
    assert not (tmp_path / "mask").exists()


def test_masks_are_those_on_the_disk_and_the_seed_chooses(folder):
    collection = opened(folder)
    drawn = [collection.draw(96, 96, seed) for seed in range(200)]
    assert drawn[0].dtype == np.uint8
    assert drawn[0].flags.c_contiguous
    assert {mask.tobytes() for mask in drawn} == {mask.tobytes() for mask in MASKS}
    np.testing.assert_array_equal([collection.draw(96, 96, seed) for seed in range(200)], drawn)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 48), (37, 53), (200, 128)])
def test_every_bin_is_hit_at_every_size(folder, height, width):
    collection = opened(folder)
    for _, low, high in BINS:
        masks = [collection.draw_in_bin(height, width, low, high, seed) for seed in range(10)]
        assert all(mask.shape == (height, width) and low < hole_ratio(mask) <= high for mask in masks)
        assert len({mask.tobytes() for mask in masks}) == 2


def test_a_resize_takes_the_nearest_pixels(folder):
    drawn = {opened(folder).draw(48, 32, seed).tobytes() for seed in range(100)}
    # The centres of 48 rows lie at 1, 3, 5, ...; those of 32 columns at 1, 4, 7, ...
    assert drawn == {mask[1::2, 1::3].tobytes() for mask in MASKS}


def test_a_file_that_leaves_its_bin_when_resized_gives_way(tmp_path):
    odd = np.zeros((96, 96), np.uint8)
    odd[1::2, 1::2] = 1  # a quarter here, everything at half the size
    plain = np.zeros((96, 96), np.uint8)
    plain[:48, :48] = 1
    collection = opened(write_folder(tmp_path / "masks", [encode_grey_png(mask * 255) for mask in (odd, plain)]))
    assert {collection.draw(48, 48, seed).mean() for seed in range(20)} == {0.25, 1.0}
    assert {collection.draw_in_bin(48, 48, 0.2, 0.3, seed).mean() for seed in range(20)} == {0.25}


def test_an_empty_bin_is_an_error_that_says_what_there_is(folder):
    for path in sorted(folder.iterdir())[2:4]:  # of 0.1-0.2
        path.unlink()
    collection = opened(folder)
    with pytest.raises(
        MaskFilesError, match=r"\(0\.1, 0\.2\] at 64x64; on disk it has 2 in 0\.01-0\.1, 0 in 0\.1-0\.2, 2 in 0"
    ):
        collection.draw_in_bin(64, 64, 0.1, 0.2, seed=0)


def test_turns_are_quarters_and_flips(folder):
    collection = opened(folder, turns=True)
    turned = [(np.rot90(mask, k)[:, ::step]).tobytes() for mask in MASKS for k in range(4) for step in (1, -1)]
    drawn = {collection.draw(96, 96, seed).tobytes() for seed in range(600)}
    assert drawn <= set(turned)
    assert len(drawn) > 0.9 * len(turned)


def test_another_collection_needs_another_digest(folder):
    files = MaskFiles(root=str(folder))
    pinned = replace(files, sha256=digest(files))
    (folder / "00000.png").write_bytes(encode_grey_png(255 * MASKS[0][::-1]))
    with pytest.raises(MaskFilesError, match=r"its digest is not files\.sha256; set it to [0-9a-f]{64} .*12 masks"):
        MaskCollection(pinned)


def test_a_file_that_changes_later_is_never_drawn(folder):
    collection = opened(folder)
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(MaskFilesError, match=r"0\d{4}\.png has changed"):
        collection.draw(96, 96, seed=0)


@pytest.mark.parametrize("threshold", [False, True])
def test_inverted_collections_are_refused_and_read_when_declared(folder, tmp_path, threshold):
    inverted = write_folder(tmp_path / "inverted", [encode_grey_png(255 - mask * 255) for mask in MASKS])
    with pytest.raises(
        MaskFilesError, match=r"files\.hole = white, \d+ of 12 .* median is 0\.[67]\d+.*files.hole to black"
    ):
        MaskCollection(MaskFiles(root=str(inverted), threshold=threshold))
    with pytest.raises(MaskFilesError, match=r"files\.hole = black, .*set files\.hole to white"):
        MaskCollection(MaskFiles(root=str(folder), hole="black", threshold=threshold))
    black = opened(inverted, hole="black", threshold=threshold)
    assert {black.draw(96, 96, seed).tobytes() for seed in range(200)} == {mask.tobytes() for mask in MASKS}


def test_one_inverted_file_is_named(folder):
    (folder / "00003.png").write_bytes(encode_grey_png(255 - 255 * MASKS[3]))
    with pytest.raises(MaskFilesError, match=r"1 of 12 masks .*00003\.png has 0\.8\d+.*unlike the rest: take them out"):
        MaskCollection(MaskFiles(root=str(folder)))
    assert len(opened(folder, max_hole_ratio=1.0).files) == 12


def test_all_that_hides_an_inverted_mask_is_its_own_share(tmp_path):
    # Whatever the true share, the wrong colour shows unless the share lies between 0.4 and 0.6.
    for tenths in range(1, 61, 3):
        mask = np.zeros((100, 100), np.uint8)
        mask[:tenths] = 255
        root = write_folder(tmp_path / f"{tenths}", [png(mask)])
        assert len(opened(root).files) == 1
        if tenths < 40:
            with pytest.raises(MaskFilesError, match=r"set files\.hole to white"):
                MaskCollection(MaskFiles(root=str(root), hole="black"))
        else:
            opened(root, hole="black")


def test_grey_files_are_refused_unless_thresholds_are_wanted(folder):
    grey = np.full((96, 96), 127, np.uint8)
    grey[:20] = 128
    (folder / "00012.png").write_bytes(png(grey))
    with pytest.raises(MaskFilesError, match=r"1 of 13 .*00012\.png \(not black and white\); .*files\.threshold"):
        MaskCollection(MaskFiles(root=str(folder)))
    collection = opened(folder, threshold=True)
    expected = (grey >= 128).astype(np.uint8).tobytes()
    assert expected in {collection.draw(96, 96, seed).tobytes() for seed in range(200)}


@pytest.mark.parametrize(("share", "is_fit"), [(0.0099, True), (0.0101, False)])
@pytest.mark.parametrize(("value", "is_grey"), [(0, False), (10, False), (11, True), (244, True), (245, False)])
def test_a_hundredth_of_grey_is_the_limit(tmp_path, share, is_fit, value, is_grey):
    mask = np.zeros((100, 100), np.uint8)
    mask[:20] = 255
    mask.flat[5000 : 5000 + int(share * 10000)] = value
    root = write_folder(tmp_path / "masks", [png(mask)])
    if is_fit or not is_grey:
        assert opened(root).draw(100, 100, 0).sum() == np.count_nonzero(mask >= 128)
    else:
        with pytest.raises(MaskFilesError, match="not black and white"):
            MaskCollection(MaskFiles(root=str(root)))


def test_one_bit_palettes_and_equal_channels_are_read_alike(tmp_path):
    mask = MASKS[4] * 255
    palette = Image.fromarray(1 - MASKS[4])
    palette.putpalette([255, 255, 255, 0, 0, 0])  # number 0 is white
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    bits = io.BytesIO()
    Image.fromarray(mask).convert("1", dither=Image.Dither.NONE).save(bits, "PNG")
    contents = [png(mask), png(np.repeat(mask[..., None], 3, 2)), buffer.getvalue(), bits.getvalue()]
    assert len(set(contents)) == 4
    collection = opened(write_folder(tmp_path / "masks", contents))
    assert {collection.draw(96, 96, seed).tobytes() for seed in range(30)} == {MASKS[4].tobytes()}


@pytest.mark.parametrize("what", ["nothing", "text", "half a file", "photograph", "an opaque sheet with a cut"])
def test_what_is_no_mask_is_refused_by_name(folder, what):
    (folder / "bad.png").write_bytes(REFUSED[what])
    with pytest.raises(MaskFilesError, match=r"1 of 13 masks cannot be used: bad\.png \(.+\); take them out"):
        MaskCollection(MaskFiles(root=str(folder), threshold=True))


def test_masks_are_understood_as_by_every_reader_and_those_in_other_ways_are_counted(tmp_path, caplog):
    kinds = ("grey", "0 and 1", "red on black", "red on white", "white strokes on nothing", "photograph with a cut")
    collection = opened(write_folder(tmp_path / "masks", [READ[kind][0] for kind in kinds]))
    assert {collection.draw(*HOLE.shape, seed).tobytes() for seed in range(30)} == {HOLE.astype(np.uint8).tobytes()}
    counts = re.findall(r"(\d) of 6 masks: (.*)", caplog.text)
    assert ("2", "the hole is coloured") in counts
    assert {count for count, remark in counts if remark != "the hole is coloured"} == {"1"}
    assert len(counts) == 4


def test_files_left_out_are_counted(folder, caplog):
    (folder / "README.txt").write_text("terms of use")
    (folder / "empty.png").write_bytes(png(np.zeros((96, 96), np.uint8)))
    collection = opened(folder)
    assert len(collection.files) == 12
    assert "left out 1 files that are no PNG, 1 without a hole" in caplog.text


@pytest.mark.parametrize("make", ["nothing", "no_png", "only_empty", "gzip", "no_root"])
def test_collections_that_cannot_be_used_say_why(tmp_path, make):
    root = tmp_path / "masks"
    if make != "no_root":
        root.mkdir()
    if make == "no_png":
        (root / "mask.jpg").write_bytes(b"x")
    if make == "only_empty":
        (root / "mask.png").write_bytes(png(np.zeros((96, 96), np.uint8)))
        with pytest.raises(MaskFilesError, match="none of its 1 masks has a hole that is white"):
            opened(root)
        return
    if make == "gzip":
        (root / "mask.png").write_bytes(png(MASKS[0] * 255))
        with tarfile.open(tmp_path / "masks.tgz", "w:gz") as archive:
            archive.add(root / "mask.png", "mask.png")
        root = tmp_path / "masks.tgz"
    messages = {"nothing": "holds no files", "no_png": r"no \.png", "gzip": "pack it as", "no_root": "does not exist"}
    with pytest.raises(MaskFilesError, match=messages[make]):
        MaskCollection(MaskFiles(root=str(root)))


def test_training_and_the_suite_read_the_files(folder, tmp_path):
    files = MaskFiles(root=str(folder))
    config = MaskConfig(kind="files", files=replace(files, sha256=digest(files)))
    pictures = write_split(tmp_path / "shards", 4)
    samples = TrainingSamples({"image": pictures["image"]}, SampleConfig(masks=config), seed=1)
    masks = open_masks(config)
    for position in range(8):
        sample = samples[position]
        epoch = position // 4
        expected = masks.draw(64, 64, derive_seed(1, "mask", epoch, sample.key))
        np.testing.assert_array_equal(sample.mask, expected)
    members = pickle.loads(pickle.dumps(SuiteContent(config, open_masks(config), 3, RATIO_BINS)))
    stored = members("a/key", np.zeros((96, 96, 3), np.uint8))
    for (name, low, high), content in zip(BINS, stored.values(), strict=True):
        mask = np.array(Image.open(io.BytesIO(content)))
        assert set(np.unique(mask)) == {0, 255}, name
        assert low < hole_ratio(mask // 255) <= high


def test_other_kinds_are_drawn():
    masks = open_masks(MaskConfig())
    assert masks == DrawnMasks(MaskConfig())
    assert 0.3 < hole_ratio(masks.draw_in_bin(64, 64, 0.3, 0.4, seed=0)) <= 0.4
    assert masks.draw(64, 64, seed=0).any()
