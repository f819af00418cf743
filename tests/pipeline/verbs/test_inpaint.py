"""What `inpaint` refuses before it loads a model, and what it says of a mask that it takes."""

import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.errors import UserError
from jobs.tracking.model_files import ModelError
from masks.hole_ratio import hole_ratio
from masks.reading import read_mask
from pipeline.verbs import inpaint
from tests.masks.test_reading import HOLE, READ, REFUSED, SIZE, encoded, two


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("tracking") / "mlflow.db"


@pytest.fixture
def fill(tmp_path, monkeypatch, database):
    """Inpaint a picture of SIZE x SIZE with a mask. There is no model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    Image.fromarray(photograph(1, SIZE)).save("image.png")

    def run(mask: bytes, output: str = "filled.png", **options) -> None:
        (tmp_path / "mask.png").write_bytes(mask)
        inpaint.run("edge_connect", "image.png", "mask.png", output, "candidate", **options)

    return run


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_without_one_meaning_is_refused(fill, what):
    with pytest.raises(UserError, match=r"^mask\.png: .+; give a PNG") as error:
        fill(REFUSED[what])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", READ)
def test_a_mask_with_one_meaning_is_taken(fill, what):
    with pytest.raises(ModelError):  # for the want of a model alone
        fill(READ[what][0])


@pytest.mark.parametrize(
    ("mask", "share"), [(np.zeros((SIZE, SIZE), np.uint8), "0.0%"), (np.full((SIZE, SIZE), 255, np.uint8), "100.0%"),
                        (two(255, 0, np.arange(SIZE * SIZE).reshape(SIZE, SIZE) >= 300), "96.7%")]
)  # fmt: skip
def test_a_hole_of_nothing_or_of_nearly_everything_is_refused(fill, mask, share):
    with pytest.raises(
        UserError, match=rf"the white part of mask\.png, {share} of the picture, would be filled.*--hole"
    ):
        fill(encoded(mask))


def test_the_hole_may_be_black(fill):
    with pytest.raises(UserError, match=r"the black part of mask\.png, 100\.0%"):
        fill(encoded(np.zeros((SIZE, SIZE), np.uint8)), hole="black")


@pytest.mark.parametrize(
    ("height", "width", "fits"), [(192, 192, True), (48, 48, True), (48, 49, True), (96, 120, False)]
)
def test_a_mask_of_another_size_is_resized_if_its_proportions_are_the_images(fill, height, width, fits):
    mask = np.array(Image.fromarray(two(255, 0)).resize((width, height), Image.Resampling.NEAREST))
    with pytest.raises(ModelError if fits else UserError, match="not found" if fits else f"mask.png is {width}x"):
        fill(encoded(mask))
    if fits:
        fitted, notes = inpaint._fit(read_mask(encoded(mask)), photograph(1, SIZE), "image.png", "mask.png")
        assert fitted.shape == (SIZE, SIZE)
        assert hole_ratio(fitted) == pytest.approx(HOLE.mean(), rel=0.05)
        assert notes == (f"the mask is resized from {width}x{height} to {SIZE}x{SIZE}",)


def test_a_missing_file_is_named(fill):
    with pytest.raises(UserError, match=r"absent\.png: No such file"):
        inpaint.run("edge_connect", "image.png", "absent.png", "filled.png", "candidate")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("filled.jpg", r"filled\.jpg: the result is written as PNG"),
        ("filled", "filled: the result is written as PNG"),
        ("absent/filled.png", "not a file in a folder that exists"),
        ("image.png", r"is also the input image\.png"),
        ("./mask.png", r"is also the input mask\.png"),
        ("link.png", r"link\.png is also the input image\.png"),
    ],
)
def test_a_result_that_cannot_be_written_or_would_replace_an_input_is_refused(fill, tmp_path, output, message):
    (tmp_path / "link.png").symlink_to("image.png")
    before = (tmp_path / "image.png").read_bytes()
    with pytest.raises(UserError, match=message):
        fill(READ["grey"][0], output)
    assert (tmp_path / "image.png").read_bytes() == before


def test_the_command_line_has_the_colour_of_the_hole(fill, capsys):
    from pipeline.__main__ import main

    with pytest.raises(UserError):
        fill(REFUSED["photograph"])
    assert main(["inpaint", "edge_connect", "image.png", "mask.png", "filled.png", "--hole=black"]) == 1
    assert re.match(r"inpaint: mask\.png: many colours", capsys.readouterr().err)
