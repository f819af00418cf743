"""What `inpaint` refuses before it loads a model, and what it does with one: sketches, tiles, folders."""

import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.errors import UserError
from jobs.tracking.model_files import ModelError
from jobs.tracking.sketches import encode_sketch
from masks.hole_ratio import hole_ratio
from pipeline.inpainting.filling import parse_model
from pipeline.inpainting.listing import list_tasks
from pipeline.inpainting.reading import read_inputs
from pipeline.verbs import inpaint
from tests.jobs.tracking.models import register
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
        inpaint.run("edge_connect", "image.png", "mask.png", output, **options)

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
        inputs = read_inputs(*list_tasks("image.png", "mask.png", "filled.png"), "white")
        assert inputs.mask.shape == (SIZE, SIZE)
        assert hole_ratio(inputs.mask) == pytest.approx(HOLE.mean(), rel=0.05)
        assert inputs.notes == (f"the mask is resized from {width}x{height} to {SIZE}x{SIZE}",)


def test_a_missing_file_is_named(fill):
    with pytest.raises(UserError, match=r"absent\.png: No such file"):
        inpaint.run("edge_connect", "image.png", "absent.png", "filled.png")


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
    assert main(["inpaint", "--model=unet", "image.png", "mask.png", "-o", "filled.png", "--hole=black"]) == 1
    assert re.match(r"inpaint: mask\.png: many colours", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("inpaint-csa@champion", ("inpaint-csa", "champion")),
        ("models:/inpaint-csa/3", ("inpaint-csa", "3")),
        ("edge_connect", ("inpaint-edge_connect", "candidate")),
    ],
)
def test_a_model_is_named_by_alias_number_or_neither(text, version):
    assert parse_model(text) == version


def test_another_name_of_a_model_is_refused_with_the_form():
    with pytest.raises(UserError, match="'a b' names no model; give a name and an alias"):
        parse_model("a b")


@pytest.fixture(scope="module")
def registry(tmp_path_factory, empty_database):
    """Registered versions of tiny networks: one that follows lines, and one that does not."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}")
        register(folder / "1", "edge_connect")
        register(folder / "2", "unet")
    return folder


@pytest.fixture
def here(registry, tmp_path, monkeypatch):
    """The working folder of a user: a picture with a hole, and a sketch with a line across it and beyond."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph(1, SIZE)).save("image.png")
    Image.fromarray(255 * HOLE.astype(np.uint8)).save("mask.png")
    return tmp_path


def drawn(column, name, start=0):
    """A sketch: black on white, one vertical line from a row to the bottom."""
    sketch = np.full((SIZE, SIZE), 255, np.uint8)
    sketch[start:, column] = 0
    Image.fromarray(sketch).save(name)
    return name


def result(name="filled.png"):
    return np.array(Image.open(name)).astype(int)


def test_the_result_follows_the_lines_inside_the_hole_and_changes_nothing_outside(here):
    hole = np.zeros((SIZE, SIZE), bool)
    hole[8:80, 8:88] = True
    Image.fromarray(255 * hole.astype(np.uint8)).save("mask.png")

    def filled(sketch):
        (said,) = inpaint.run("edge_connect", "image.png", "mask.png", "filled.png", sketch=sketch)
        assert f"following the black lines of {sketch}" in said
        assert np.array_equal(result()[~hole], photograph(1, SIZE)[~hole])
        return result()

    places = (20, 40, 60, 76)
    by_line = [filled(drawn(column, f"{column}.png")) for column in places]
    for one, column in zip(by_line, places, strict=True):  # it differs most from all others where its line is
        differences = [np.abs(one - other).sum(axis=2) for other in by_line if other is not one]
        assert abs(int(np.minimum.reduce(differences).sum(axis=0).argmax()) - column) <= 8
    assert np.array_equal(filled(drawn(40, "outside.png", start=80)), filled(drawn(40, "empty.png", start=SIZE)))


def test_a_generator_that_follows_no_lines_and_a_sketch_of_another_size_are_refused(here):
    drawn(20, "lines.png")
    with pytest.raises(UserError, match=r"lines\.png: inpaint-unet candidate follows no lines"):
        inpaint.run("unet", "image.png", "mask.png", "filled.png", sketch="lines.png")
    Image.open("lines.png").resize((48, 48)).save("small.png")
    with pytest.raises(UserError, match=r"small\.png is 48x48, image\.png is 96x96"):
        inpaint.run("edge_connect", "image.png", "mask.png", "filled.png", sketch="small.png")
    assert not (here / "filled.png").exists()


def test_the_signature_has_the_sketch_as_an_option_and_mlflow_passes_it_on(here):
    address = "models:/inpaint-edge_connect@candidate"
    model = mlflow.pyfunc.load_model(mlflow.artifacts.download_artifacts(address, dst_path=str(here / "model")))
    inputs = {"image": photograph(1, SIZE)[None], "mask": HOLE.astype(np.uint8)[None, ..., None]}
    lines = (np.arange(SIZE) == 45).astype(np.uint8) * np.ones((SIZE, 1), np.uint8)
    plain, guided = model.predict(inputs), model.predict(inputs, params={"sketch": encode_sketch(lines)})
    assert not np.array_equal(plain, guided)
    Image.fromarray(255 * lines).save("lines.png")
    inpaint.run("edge_connect", "image.png", "mask.png", "filled.png", sketch="lines.png")
    assert np.array_equal(result(), guided[0])
    assert mlflow.models.get_model_info("models:/inpaint-unet@candidate").signature.params is None


def test_a_large_picture_is_filled_in_tiles_and_the_output_says_how(here):
    Image.fromarray(np.tile(photograph(1, SIZE), (4, 4, 1))).save("image.png")
    Image.fromarray(np.kron(255 * HOLE.astype(np.uint8), np.ones((4, 4), np.uint8))).save("mask.png")
    (said,) = inpaint.run("unet", "image.png", "mask.png", "filled.png", pixels_at_once=256 * 256)
    assert re.search(r"; filled in tiles of 256x256 that overlap by \d+ pixels", said)
    mask = np.array(Image.open("mask.png")) > 0
    assert np.array_equal(result()[~mask], np.array(Image.open("image.png"))[~mask])
    (said,) = inpaint.run("unet", "image.png", "mask.png", "filled.png")
    assert "tiles" not in said


def test_a_folder_is_filled_and_the_pictures_that_cannot_be_are_named(here):
    for name in ("photos/a.png", "photos/deep/b.jpg", "photos/c.png", "masks/a.png", "masks/deep/b.png", "masks/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.open("mask.png" if name.startswith("masks") else "image.png").save(name)
    lines = inpaint.run("unet", "photos", "masks", "out")
    assert [line.rpartition(": ")[2] for line in lines] == ["out/a.png", "out/c.png", "out/deep/b.png"]
    Path("photos/a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^1 of 3 pictures are not filled: photos/a\.png: not a"):
        inpaint.run("unet", "photos", "mask.png", "again")
    assert sorted(path.name for path in Path("again").rglob("*.png")) == ["b.png", "c.png"]
    Path("masks/c.png").unlink()
    with pytest.raises(UserError, match=r"masks has no mask of photos/c\.png; name it c\.png"):
        inpaint.run("unet", "photos", "masks", "third")
    with pytest.raises(UserError, match="photos is also a folder of inputs"):
        inpaint.run("unet", "photos", "mask.png", "photos")
    assert not Path("third").exists()


def test_a_picture_much_larger_than_those_of_the_training_gets_a_note(here, registry):
    client = mlflow.MlflowClient()
    run = client.get_model_version_by_alias("inpaint-unet", "candidate").run_id
    client.log_text(run, '{"ingest": {"size": 40}}', "params.json")
    (said,) = inpaint.run("unet", "image.png", "mask.png", "filled.png")
    assert "the picture has 96x96 pixels, inpaint-unet was trained at 40: a large hole may stay" in said
    client.log_text(run, '{"ingest": {"size": 64}}', "params.json")
    assert "trained at" not in inpaint.run("unet", "image.png", "mask.png", "filled.png")[0]
