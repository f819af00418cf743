"""ADE20K."""

from pathlib import Path

import numpy as np

from datasets.sources import SOURCES, open_source, source_config
from tests.datasets.sources.trees import jpeg, label_map, label_png, write_zip


def test_ade20k_other_is_not_known(tmp_path: Path) -> None:
    files = {
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg": jpeg(0),
        "ADEChallengeData2016/annotations/training/ADE_train_00000001.png": label_png(np.array([[0, 1, 150]])),
        "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg": jpeg(1),
        "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png": label_png(np.array([[2]])),
    }
    config = source_config(name="ade20k", root=str(write_zip(tmp_path / "ADEChallengeData2016.zip", files)))
    assert [image.split for image in open_source(config).images()] == ["train", "val"]
    assert np.array_equal(label_map(config, "training/ADE_train_00000001"), [[255, 0, 149]])
    assert len(SOURCES["ade20k"].classes) == 150
