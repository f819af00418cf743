import dataclasses
import gzip
import hashlib
import io
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.ingest import IngestConfig
from datasets.shards.column import Column
from datasets.shards.manifest import read_manifest
from datasets.sources import source_config
from files.archives import ArchiveError
from files.durable import file_digest
from files.pictures import BELOW_MINIMUM, DAMAGED, EMPTY, NO_IMAGE, decode_image, decode_map
from masks.config import MaskConfig, MaskFiles
from masks.drawn import draw_mask_in_bin
from masks.hole_ratio import BINS, hole_ratio, member_of_bin
from pipeline.params import ParamsError, read_params
from pipeline.stages import edges, ingest, masks, train
from pipeline.stages.ingest import IngestError
from tests.pipeline.pictures import write_gzip_tar

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
def pictures(tmp_path):
    """Forty PNGs in train/ and val/."""
    for number in range(40):
        path = tmp_path / "pictures" / ("val" if number % 5 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 48)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def params(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_params(ROOT / "params.yaml")
    return dataclasses.replace(
        read,
        dataset=source_config(name="folder", root=str(pictures)),
        ingest=IngestConfig(size=32, format="png", records_per_shard=7, max_rejected=0.1),
        cluster=dataclasses.replace(read.cluster, num_workers=0, train_workers=0),
    )


def test_splits_counts_and_keys_are_those_of_the_folder(params):
    ingest.run(params)
    train, val = Column(Path("shards/image/train")), Column(Path("shards/image/val"))
    assert (train.manifest.records, val.manifest.records) == (32, 8)
    assert sorted(val.keys.to_pylist()) == [f"val/{n:03d}" for n in range(0, 40, 5)]
    assert max(train.shard_sizes) <= 7
    assert {(row["width"], row["height"]) for row in train.table.to_pylist()} == {(32, 32)}


@pytest.mark.slow
def test_any_number_of_workers_and_any_hash_seed_give_the_same_bytes(params):
    code = (
        "import pickle, sys\n"
        "from pipeline.stages import ingest, edges, masks\n"
        "params = pickle.load(sys.stdin.buffer)\n"
        "ingest.run(params); edges.run(params); masks.run(params)\n"
        "print(hash('text'))\n"
    )
    digests, hashes = [], set()
    for num_workers, seed in itertools.product((0, 1, 2), (1, 2)):
        cluster = dataclasses.replace(params.cluster, num_workers=num_workers)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
        changed = pickle.dumps(dataclasses.replace(params, cluster=cluster))
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, input=changed, env=environment, capture_output=True, check=True)
        hashes.add(result.stdout.split()[-1])
        digests.append({str(p): file_digest(p) for p in sorted(Path("shards").rglob("*")) if p.is_file()})
    assert len(hashes) == 2  # the seeds had an effect
    assert len(digests) == 6
    assert all(each == digests[0] for each in digests)


def test_a_suite_of_files_is_the_same_from_everywhere_and_names_their_digest(params, tmp_path):
    contents = []
    for _, low, high in BINS:
        buffer = io.BytesIO()
        mask = draw_mask_in_bin(MaskConfig(kind="thick"), 32, 32, low, high, seed=1)
        Image.fromarray(mask * 255).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    digest = hashlib.sha256("".join(sorted(hashlib.sha256(c).hexdigest() for c in contents)).encode()).hexdigest()
    ingest.run(params)
    manifests = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for number, content in enumerate(contents):
            (tmp_path / place / f"{place}{number}.png").write_bytes(content)
        files = MaskFiles(root=str(tmp_path / place), sha256=digest)
        suite = dataclasses.replace(params.suite, masks=MaskConfig(kind="files", files=files))
        masks.run(dataclasses.replace(params, suite=suite))
        manifests.add(Path("shards/mask/val/manifest.json").read_text())
    assert len(manifests) == 1
    text = manifests.pop()
    assert digest in text
    assert str(tmp_path) not in text
    suite_masks = Column(Path("shards/mask/val"))
    for record in range(8):
        for name, low, high in BINS:
            mask = decode_map(suite_masks.read(record, member_of_bin("mask", name)))
            assert low < hole_ratio(mask // 255) <= high


def test_removing_one_image_changes_no_other_record_split_or_mask(params, pictures):
    def contents(folder):
        column = Column(Path(folder))
        return {(row["key"], row["field"]): row["sha256"] for row in column.table.to_pylist()}

    def everything():
        ingest.run(params)
        edges.run(params)
        masks.run(params)
        return {f: contents(f"shards/{f}") for f in ("image/train", "image/val", "edges/edge/train", "mask/val")}

    before = everything()
    (pictures / "val" / "010.png").unlink()
    after = everything()
    for folder, rows in before.items():
        assert after[folder] == {place: digest for place, digest in rows.items() if place[0] != "val/010"}


def test_bad_pictures_are_listed_and_the_others_are_as_if_they_were_not_there(params, pictures):
    """A PNG with the suffix of a JPEG is accepted: contents decide, not names."""
    ingest.run(params)
    clean = {row["key"]: row["sha256"] for row in Column(Path("shards/image/train")).table.to_pylist()}
    good = (pictures / "train" / "001.png").read_bytes()
    jpeg = _jpeg(99)
    bad = {
        "cut.png": (good[: len(good) // 2], DAMAGED),
        "cut_short.jpg": (jpeg[: len(jpeg) // 2], DAMAGED),
        "empty.png": (b"", EMPTY),
        "text.jpg": (b"no picture", NO_IMAGE),
    }
    for name, (content, _) in bad.items():
        (pictures / "train" / name).write_bytes(content)
    (pictures / "train" / "wrong_suffix.jpg").write_bytes(good)
    ingest.run(params)
    manifest = read_manifest(Path("shards/image/train"))
    assert {reject.name.rpartition("/")[2]: reject.reason for reject in manifest.rejected} == {
        name: reason for name, (_, reason) in bad.items()
    }
    found = {row["key"]: row["sha256"] for row in Column(Path("shards/image/train")).table.to_pylist()}
    assert found == clean | {"train/wrong_suffix": clean["train/001"]}


def test_every_kind_of_picture_has_its_declared_outcome_and_edges_of_its_size(params, pictures):
    """Grey, CMYK, palette with alpha, 16 bits, turned by EXIF, progressive; 1x1 is rejected."""
    array = np.dstack(
        [np.linspace(0, 255, 40)[None].repeat(60, axis=0), photograph(7, 60)[:, :40, 0], np.full((60, 40), 99)]
    )
    rgb = Image.fromarray(array.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = rgb.quantize(16)
    kinds = {
        "grey.png": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "palette.png": (palette, {"transparency": bytes(range(0, 256, 16))}),
        "sixteen.png": (Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257), {}),
        "turned.jpg": (rgb, {"exif": exif}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "one.png": (Image.new("RGB", (1, 1)), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(pictures / "train" / name, **options)
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, size=20, rule="shorter"))
    ingest.run(params)
    edges.run(params)
    images, maps = Column(Path("shards/image/train")), Column(Path("shards/edges/edge/train"))
    assert [(r.name.rpartition("/")[2], r.reason) for r in images.manifest.rejected] == [("one.png", BELOW_MINIMUM)]
    stored = {}
    for record, key in enumerate(images.keys.to_pylist()):
        stored[key] = decode_image(images.read(record))
        assert decode_map(maps.read(record)).shape == stored[key].shape[:2]
    shapes = {Path(name).stem: stored[f"train/{Path(name).stem}"].shape for name in kinds if name != "one.png"}
    assert shapes == dict.fromkeys(shapes, (30, 20, 3)) | {"turned": (20, 30, 3)}
    for name in ("grey", "sixteen"):
        assert (stored[f"train/{name}"] == stored[f"train/{name}"][..., :1]).all()
    assert np.array_equal(stored["train/grey"], stored["train/sixteen"])
    upright = np.rot90(stored["train/turned"]).astype(int)
    assert np.abs(upright - stored["train/progressive"]).mean() < 3


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_source_bytes_are_kept_where_nothing_has_to_change(params, pictures, image_format):
    for path in (pictures / "train").iterdir():
        path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 3
    rgb, grey = Image.fromarray(photograph(1, 32)), Image.fromarray(photograph(2, 32)[..., 0])
    saved = {
        "good.jpg": (rgb, {"quality": 80}), "grey.jpg": (grey, {}), "turned.jpg": (rgb, {"exif": exif}),
        "large.jpg": (rgb.resize((40, 40)), {}), "wide.jpg": (rgb.resize((40, 32)), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "good2.png": (rgb, {"compress_level": 1}), "grey2.png": (grey, {}), "alpha2.png": (rgb.convert("RGBA"), {}),
        "palette2.png": (rgb.quantize(8), {}), "keyed2.png": (rgb, {"transparency": (1, 2, 3)}),
        "turned2.png": (rgb, {"exif": exif}), "large2.png": (rgb.resize((40, 40)), {}),
    }  # fmt: skip
    for name, (image, options) in saved.items():
        image.save(pictures / "train" / name, **options)
    config = dataclasses.replace(params.ingest, format=image_format)
    ingest.run(dataclasses.replace(params, ingest=config))
    encoded = {row["key"]: row["sha256"] for row in Column(Path("shards/image/train")).table.to_pylist()}
    ingest.run(dataclasses.replace(params, ingest=dataclasses.replace(config, keep_source=True)))
    images = Column(Path("shards/image/train"))
    assert images.field == {"jpeg": "jpg", "png": "png"}[image_format]
    kept = set()
    for row in images.table.to_pylist():
        if row["sha256"] == row["source_sha256"]:
            kept.add(row["key"])
        else:
            assert row["sha256"] == encoded[row["key"]]
    wanted = {"jpeg": {"train/good", "train/grey"}, "png": {"train/good2", "train/grey2"}}[image_format]
    assert kept == wanted
    val = Column(Path("shards/image/val"))  # lossless, and of 48 pixels: nothing to keep
    assert {row["field"] for row in val.table.to_pylist()} == {"png"}


@pytest.mark.parametrize(
    ("rule", "shape"),
    [("crop", (32, 32)), ("squash", (32, 32)), ("cut", (32, 32)), ("shorter", (32, 43)), ("keep", (48, 64))],
)
def test_every_rule_has_its_size_and_its_column_follows(params, pictures, rule, shape):
    picture = np.concatenate([photograph(0, 48), photograph(1, 48)[:, :16]], axis=1)
    for path in pictures.rglob("*.png"):
        Image.fromarray(picture).save(path)
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, rule=rule))
    ingest.run(params)
    masks.run(params)
    images, holes = Column(Path("shards/image/val")), Column(Path("shards/mask/val"))
    assert {(row["height"], row["width"]) for row in images.table.to_pylist()} == {shape}
    assert decode_map(holes.read(0, holes.fields[0])).shape == shape
    stored = decode_image(images.read(0))
    assert stored.shape == (*shape, 3)
    if rule == "keep":
        assert np.array_equal(stored, picture)
    if rule == "cut":
        assert np.array_equal(stored, picture[8:40, 16:48])


def test_training_says_that_it_needs_one_size(params, pictures):
    Image.fromarray(photograph(0, 64)[:40]).save(pictures / "train" / "wide.png")
    params = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, rule="keep"))
    ingest.run(params)
    edges.run(params)
    with pytest.raises(ParamsError, match=r"images of 2 sizes \(48 x 48 and others\), .* set ingest\.rule to"):
        train.run(params, "edge_connect")


def _tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _jpeg(number):
    buffer = io.BytesIO()
    Image.fromarray(photograph(number, 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_places2_as_downloaded_becomes_shards_with_its_classes(params, tmp_path, caplog):
    root = tmp_path / "places365"
    classes = ("/a/airfield", "/f/field/wild")
    train = {f"data_256{c}/{n:08d}.jpg": _jpeg(10 * k + n) for k, c in enumerate(classes) for n in (1, 2, 3)}
    val = {f"val_256/Places365_val_{n:08d}.jpg": _jpeg(50 + n) for n in (1, 2)}
    _tar(root / "train_256_places365standard.tar", train)
    _tar(root / "val_256.tar", val)
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/f/field/wild 1\n")
    (root / "places365_val.txt").write_text("Places365_val_00000001.jpg 1\nPlaces365_val_00000002.jpg 0\n")
    ingest.run(dataclasses.replace(params, dataset=source_config(name="places2", root=str(root))))
    for split, here, published in (("train", "6", 1_803_460), ("val", "2", 36_500)):
        assert f"places2 has {here} pictures of {split} here, {published:,} were published" in caplog.text
        assert read_manifest(Path("shards/image", split)).parameters["published_pictures"] == published
    rows = {s: Column(Path("shards/image", s)).table.to_pylist() for s in ("train", "val")}
    assert {(r["key"].rpartition("/")[2], r["label"]) for r in rows["train"]} == {
        (f"{n:08d}", label) for n in (1, 2, 3) for label in ("airfield", "field/wild")
    }
    assert sorted(r["label"] for r in rows["val"]) == ["airfield", "field/wild"]
    assert len({r["key"] for r in rows["train"]}) == 6  # the same base name in two classes is two records
    assert {r["source_sha256"] for r in rows["train"]} == {hashlib.sha256(c).digest() for c in train.values()}


def test_celeba_hq_as_downloaded_is_split_by_the_names_of_its_originals(params, tmp_path):
    root = tmp_path / "CelebAMask-HQ"
    (root / "CelebA-HQ-img").mkdir(parents=True)
    originals = ("000001.jpg", "162771.jpg", "182638.jpg", "000007.jpg")
    mapping = ["idx orig_idx orig_file"]
    for index, original in enumerate(originals):
        (root / "CelebA-HQ-img" / f"{index}.jpg").write_bytes(_jpeg(index))
        mapping.append(f"{index} {int(original[:6]) - 1} {original}")
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")
    partition = {"000001.jpg": 0, "162771.jpg": 1, "182638.jpg": 2, "000007.jpg": 0}
    (root / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, part in partition.items()))
    ingest.run(dataclasses.replace(params, dataset=source_config(name="celeba_hq", root=str(root))))
    counts = {path.name: Column(path).manifest.records for path in Path("shards/image").iterdir()}
    assert counts == {"train": 2, "val": 1, "test": 1}
    parameters = Column(Path("shards/image/val")).manifest.parameters
    lists = ("CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt")
    assert parameters["split_list"] == "celeba"
    assert parameters["list_files"] == {name: file_digest(root / name) for name in lists}


def test_paris_names_full_of_dots_stay_apart_in_the_shards(params, tmp_path):
    """A WebDataset reader cuts a member's base name at its first dot to get the key."""
    root = tmp_path / "paris_train_original"
    root.mkdir()
    for number in range(8):
        (root / f"48.8425{number // 2:02d}_2.344968_{90 * (number % 2)}_-004.JPG").write_bytes(_jpeg(number))
    ingest.run(dataclasses.replace(params, dataset=source_config(name="paris_streetview", root=str(tmp_path))))
    keys = []
    for path in Path("shards/image").rglob("*.tar"):
        with tarfile.open(path) as archive:
            for name in archive.getnames():
                folder, _, base = name.rpartition("/")
                keys.append(f"{folder}/{base.split('.')[0]}")
    assert len(keys) == len(set(keys)) == 8
    manifest = Column(Path("shards/image/train")).manifest
    assert manifest.parameters["val_share"] == 0.1
    assert manifest.dataset == "paris_streetview"


def test_too_many_bad_pictures_stop_the_stage_before_any_manifest(params, pictures):
    for number in range(6):
        (pictures / "train" / f"empty{number}.png").write_bytes(b"")
    with pytest.raises(IngestError, match=r"at least [56] of 46 images are unusable, more than .* allows: [56] x"):
        ingest.run(params)
    assert not list(Path("shards").rglob("manifest.json"))


def test_too_small_pictures_are_named(params):
    small = dataclasses.replace(params, ingest=dataclasses.replace(params.ingest, size=64))
    with pytest.raises(IngestError, match=r"\d+ x smaller than the requested size"):
        ingest.run(small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("root: nowhere", r"ingest: .*nowhere does not exist"),
        ("root: empty", r"ingest: .*empty holds no files"),
        ("root: twins", r"ingest: .*a\.jpg and .*a\.png both have the key"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(params, change, message):
    Path("empty").mkdir()
    for name in ("twins/a.png", "twins/a.jpg", "twins/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(1, 48)).save(name)
    text = (ROOT / "params.yaml").read_text().replace("name: photos\n  root: null", f"name: folder\n  {change}")
    Path("params.yaml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", "ingest"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert [line.startswith("see docs/") for line in result.stderr.splitlines()] == [False, True]
    import re

    assert re.search(message, result.stderr), result.stderr


def test_a_gzip_tar_is_inflated_as_often_for_many_shards_as_for_one(params, pictures, tmp_path, monkeypatch):
    ingest.run(params)
    from_folder = {str(p): file_digest(p) for p in Path("shards").rglob("*") if p.is_file()}
    archive = write_gzip_tar(pictures, tmp_path / "pictures.tgz")
    with gzip.open(archive) as file:
        num_bytes = len(file.read())
    inflated = []
    read = gzip._GzipReader.read
    monkeypatch.setattr(gzip._GzipReader, "read", lambda *rest: inflated.append(read(*rest)) or inflated[-1])
    dataset = source_config(name="folder", root=str(archive))
    passes = {}
    for per_shard in (3, 7, 100):
        inflated.clear()
        config = dataclasses.replace(params.ingest, records_per_shard=per_shard)
        ingest.run(dataclasses.replace(params, dataset=dataset, ingest=config))
        passes[per_shard] = sum(map(len, inflated)) / num_bytes
        assert [path.name for path in Path("shards").iterdir()] == ["image"]
        if per_shard == 7:
            assert from_folder == {str(p): file_digest(p) for p in Path("shards").rglob("*") if p.is_file()}
    assert max(passes.values()) - min(passes.values()) < 0.1
    assert 1.9 < passes[3] < 2.5  # once for the list of its members, once for the tar
    assert len(Column(Path("shards/image/train")).manifest.shards) == 1


def test_a_disk_without_room_for_what_an_archive_inflates_to_is_named(params, pictures, tmp_path, monkeypatch):
    archive = write_gzip_tar(pictures, tmp_path / "pictures.tgz")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    params = dataclasses.replace(params, dataset=source_config(name="folder", root=str(archive)))
    with pytest.raises(ArchiveError, match=r"pictures\.tgz inflates .*/shards/\.image\.inflated has 1000 free"):
        ingest.run(params)
