"""Labels of a data set become a column that fits its images; missing labels are unknown or refused."""

import dataclasses
import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from datasets.ingest import IngestConfig
from datasets.maps.semantics import SemanticsConfig
from datasets.shards.column import Column, check_alignment
from datasets.sources import source_config
from files.pictures import IGNORE, FitRule, decode_image, decode_map
from pipeline.params import ParamsError, read_params
from pipeline.stages import ingest, semantics
from tests.pipeline.pictures import write_gzip_tar

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_params(ROOT / "params.yaml")
    return dataclasses.replace(
        read,
        ingest=IngestConfig(size=32, format="png", records_per_shard=3),
        semantics=SemanticsConfig(source="labels"),
        cluster=dataclasses.replace(read.cluster, num_workers=0),
    )


@pytest.mark.parametrize("rule", get_args(FitRule))
def test_labels_follow_their_pixels_into_the_shards(params, tmp_path, rule):
    """Pictures that show their own labels: red is 10 times the number in a label file of half the size."""
    for number in range(6):
        split = "validation" if number < 2 else "training"
        labels = np.random.default_rng(number).integers(1, 20, (5, 8)).astype(np.uint8)
        drawn = labels.repeat(10, axis=0).repeat(10, axis=1)
        picture = np.zeros((100, 160, 3), np.uint8)
        picture[..., 0] = 10 * drawn.repeat(2, axis=0).repeat(2, axis=1)
        for kind, array, suffix in (("images", picture, "jpg"), ("annotations", drawn, "png")):
            if number == 5 and kind == "annotations":
                continue  # a picture without labels
            path = tmp_path / "ade" / kind / split / f"ADE_{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    params = dataclasses.replace(
        params,
        dataset=source_config(name="ade20k", root=str(tmp_path / "ade")),
        ingest=dataclasses.replace(params.ingest, rule=rule),
    )
    ingest.run(params)
    semantics.run(params)
    manifests = [Path("shards/semantics", split, "manifest.json").read_bytes() for split in ("train", "val")]
    archive = write_gzip_tar(tmp_path / "ade", tmp_path / "ade.tgz")
    semantics.run(dataclasses.replace(params, dataset=source_config(name="ade20k", root=str(archive))))
    assert manifests == [Path("shards/semantics", split, "manifest.json").read_bytes() for split in ("train", "val")]
    counts = {}
    for split in ("train", "val"):
        images, column = Column(Path("shards/image") / split), Column(Path("shards/semantics") / split)
        check_alignment(images, column)
        column.verify()
        assert column.manifest.parameters["source"] == "labels"
        assert len(column.manifest.parameters["classes"]) == 150
        counts[split] = len(column.keys)
        for record, key in enumerate(column.keys.to_pylist()):
            found = decode_map(column.read(record))
            if key == "training/ADE_5":
                assert (found == IGNORE).all()
                continue
            shown = decode_image(images.read(record))[..., 0].astype(float) / 10 - 1
            inside = maximum_filter(found, 5) == minimum_filter(found, 5)  # away from the borders of the squares
            assert inside.mean() > 0.05
            assert np.array_equal(shown.round()[inside], found[inside])
    assert counts == {"train": 4, "val": 2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a picture", r"annotations/training/a\.png: damaged or cut short; repair"),
        (np.zeros((40, 60), np.uint8), r"images/training/a\.jpg is 50 x 40, but its labels .*a\.png\) are 60 x 40"),
    ],
)
def test_an_unfit_label_file_is_named(params, tmp_path, content, said):
    for kind, split in itertools.product(("images", "annotations"), ("training", "validation")):
        (tmp_path / "ade" / kind / split).mkdir(parents=True)
        name, array = ("a.jpg", np.zeros((40, 50, 3), np.uint8)) if kind == "images" else ("a.png", content)
        if isinstance(array, bytes):
            (tmp_path / "ade" / kind / split / name).write_bytes(array)
        else:
            Image.fromarray(array).save(tmp_path / "ade" / kind / split / name)
    params = dataclasses.replace(params, dataset=source_config(name="ade20k", root=str(tmp_path / "ade")))
    ingest.run(params)
    with pytest.raises(ValueError, match=said):
        semantics.run(params)


def test_a_data_set_without_labels_is_named(params, tmp_path):
    for number in range(2):
        Image.fromarray(np.full((40, 40, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    params = dataclasses.replace(params, dataset=source_config(name="folder", root=str(tmp_path)))
    ingest.run(params)
    with pytest.raises(ParamsError, match=r"semantics\.source is labels, but folder has no label maps; use kmeans or"):
        semantics.run(params)
