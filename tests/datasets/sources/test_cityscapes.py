"""Cityscapes."""

from pathlib import Path

import numpy as np

from datasets.sources import SOURCES, open_source, source_config
from tests.datasets.sources.trees import jpeg, label_map, label_png, write_folder


def test_cityscapes_has_nineteen_classes_and_void(tmp_path: Path) -> None:
    files = {
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png": jpeg(0),
        "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png": label_png(np.array([[7, 33, 0], [26, 255, 9]])),
        "gtFine/train/aachen/aachen_000000_000019_gtFine_color.png": jpeg(1),
        "leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png": jpeg(2),
        "gtFine/test/bonn/bonn_000000_000019_gtFine_labelIds.png": label_png(np.zeros((2, 3))),
    }
    config = source_config(name="cityscapes", root=str(write_folder(tmp_path, files)))
    images = {image.split: image for image in open_source(config).images()}
    assert set(images) == {"train", "test"}
    assert images["train"].group == "aachen"
    assert not images["test"].labels
    assert np.array_equal(label_map(config, images["train"].key), [[0, 18, 19], [13, 19, 19]])
    classes = SOURCES["cityscapes"].classes
    assert (classes[0], classes[13], classes[18], len(classes)) == ("road", "car", "bicycle", 20)
