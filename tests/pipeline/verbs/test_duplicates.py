import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import write_split
from datasets.ingest import IngestConfig
from datasets.sources import source_config
from pipeline.params import read_params
from pipeline.stages import ingest
from pipeline.verbs import duplicates
from pipeline.verbs.duplicates import DuplicatesError

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def texture(seed):
    """Coarse noise: no two are alike."""
    rng = np.random.default_rng(seed)
    return np.array(Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((64, 64)))


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        path = Path("pictures", "val" if number < 4 else "train", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(texture(number)).save(path)
    read = read_params(ROOT / "params.yaml")
    return dataclasses.replace(
        read,
        dataset=source_config(name="folder", root="pictures"),
        ingest=IngestConfig(size=32, format="png", records_per_shard=3),
        cluster=dataclasses.replace(read.cluster, num_workers=0),
    )


def test_pictures_in_two_splits_are_listed_and_no_others(params):
    ingest.run(params)
    assert duplicates.find_pairs(4) == []
    Path("pictures/train/copy.png").write_bytes(Path("pictures/val/1.png").read_bytes())
    Image.open("pictures/val/2.png").save("pictures/train/again.jpg", quality=60)
    Image.open("pictures/train/9.png").save("pictures/train/same_split.jpg", quality=60)
    ingest.run(params)
    pairs = json.loads(duplicates.run(4, as_json=True))
    assert [(p["split"], p["key"], p["other_split"], p["other_key"], p["same_source"]) for p in pairs] == [
        ("train", "train/copy", "val", "val/1", True),
        ("train", "train/again", "val", "val/2", False),
    ]
    assert pairs[0]["distance"] == 0
    text = duplicates.run(4, as_json=False)
    assert text.startswith(
        "train and val: 2 pairs within 4 of 64 bits or of one source, 1 of one source\n   0  train/copy"
    )


def test_squares_of_one_source_are_found_whatever_they_show(params, monkeypatch):
    """Two crops of one file, which look unlike: the digest of the source tells."""
    from datasets.sources.folder import Folder

    find = Folder._find

    def cut(self):
        for image in find(self):
            corner = (0, 0, 32, 32) if image.split == "val" else (32, 32, 64, 64)
            yield dataclasses.replace(image, crop=corner)

    Path("pictures/train/copy.png").write_bytes(Path("pictures/val/1.png").read_bytes())
    monkeypatch.setattr(Folder, "_find", cut)
    ingest.run(params)
    (pair,) = duplicates.find_pairs(4)
    assert (pair.key, pair.other_key, pair.same_source) == ("train/copy", "val/1", True)
    assert pair.distance > 4


def test_one_split_alone_and_shards_without_hashes_are_named(params):
    with pytest.raises(DuplicatesError, match="has no complete split"):
        duplicates.find_pairs(4)
    for split in ("train", "val"):
        folder = write_split(Path("made"), 3, size=32)["image"]
        Path("shards/image").mkdir(parents=True, exist_ok=True)
        folder.rename(Path("shards/image", split))
    with pytest.raises(DuplicatesError, match=r"has no hashes: .* run: dvc repro -f ingest"):
        duplicates.find_pairs(4)
