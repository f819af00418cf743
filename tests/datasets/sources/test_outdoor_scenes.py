"""OutdoorSeg and OST300."""

from pathlib import Path

import numpy as np

from datasets.sources import open_source, source_config, source_key
from tests.datasets.sources.trees import jpeg, label_map, label_png, write_folder, write_zip


def test_outdoor_scenes_pair_pictures_with_labels_across_trees_and_zips(tmp_path: Path) -> None:
    labels = np.array([[0, 7, 8], [255, 3, 1]])
    train = {"OutdoorSeg_img/a.png": jpeg(0), "OutdoorSeg_img/b.jpg": jpeg(1)}
    write_zip(tmp_path / "OutdoorSeg_img.zip", train)
    write_zip(tmp_path / "OutdoorSeg_anno.zip", {"OutdoorSeg_anno/a.png": label_png(labels)})
    write_folder(tmp_path, {"OST300_img/x.png": jpeg(2), "OST300_anno/x.png": label_png(labels)})
    config = source_config(name="outdoor_scenes", root=str(tmp_path))
    found = {image.name: (image.split, len(image.labels)) for image in open_source(config).images()}
    assert found == {
        "OutdoorSeg_img/a.png": ("train", 1), "OutdoorSeg_img/b.jpg": ("train", 0), "OST300_img/x.png": ("test", 1)
    }  # fmt: skip
    assert np.array_equal(label_map(config, source_key("OutdoorSeg_img/a.png")), [[0, 7, 255], [255, 3, 1]])
