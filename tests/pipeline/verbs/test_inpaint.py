"""What `inpaint` refuses before it loads a model."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.errors import UserError
from jobs.tracking.mlflow_runs import ModelError
from pipeline.verbs import inpaint


@pytest.fixture
def fill(tmp_path, monkeypatch):
    """Inpaint with a picture of 32 x 32 and a mask, and a model that there is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    Image.fromarray(photograph(1, 32)).save("image.png")

    def run(mask: Image.Image, name: str = "mask.png") -> None:
        mask.save(name)
        inpaint.run("edge_connect", "image.png", name, "filled.png", "candidate")

    return run


def square(*values: int, size: int = 32) -> np.ndarray:
    """A centred square of given channel values, 0 elsewhere: (size, size, channels)."""
    array = np.zeros((size, size, len(values)), np.uint8)
    array[8:24, 8:24] = values
    return array


REFUSED = {
    "red": Image.fromarray(square(255, 0, 0)),
    "transparent": Image.fromarray(np.dstack([np.full((32, 32, 3), 255, np.uint8), square(255)])),
    "grey": Image.fromarray(square(128)[..., 0]),
    "of another size": Image.fromarray(square(255, size=40)[..., 0]),
    "empty": Image.fromarray(square(0)[..., 0]),
    "of values 0 and 1": Image.fromarray(square(1)[..., 0]),
    "all hole": Image.fromarray(np.full((32, 32), 255, np.uint8)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_that_can_be_read_in_two_ways_is_refused(fill, what):
    with pytest.raises(UserError, match=r"mask\.png"):
        fill(REFUSED[what])


def test_a_jpeg_is_no_mask(fill):
    with pytest.raises(UserError, match=r"mask\.jpg: .*; give a PNG"):
        fill(Image.fromarray(square(255)[..., 0]), "mask.jpg")


def test_a_missing_file_is_named(fill):
    with pytest.raises(UserError, match=r"absent\.png: No such file"):
        inpaint.run("edge_connect", "image.png", "absent.png", "filled.png", "candidate")


@pytest.mark.parametrize("mask", [square(255)[..., 0], square(255, 255, 255)])
def test_a_black_and_white_mask_of_one_or_three_channels_is_taken(fill, mask):
    with pytest.raises(ModelError):  # for the want of a model alone
        fill(Image.fromarray(mask))


def test_a_result_that_is_no_png_is_refused(fill):
    Image.fromarray(square(255)[..., 0]).save("mask.png")
    with pytest.raises(UserError, match=r"filled\.jpg: the result is written as PNG"):
        inpaint.run("edge_connect", "image.png", "mask.png", "filled.jpg", "candidate")
