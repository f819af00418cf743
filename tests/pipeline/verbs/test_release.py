"""A released version is checked and run by someone without this repository."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import photograph
from files.checkout import ROOT
from jobs.tracking.mlflow_registry import load_model
from pipeline.__main__ import main
from tests.pipeline.verbs.registries import NAME, enter_copy, make_registry


@pytest.fixture(scope="module")
def made(tmp_path_factory, empty_database):
    return make_registry(tmp_path_factory.mktemp("registry"), empty_database, 1)


@pytest.fixture
def registry(made, tmp_path, monkeypatch):
    return enter_copy(made, tmp_path / "registry", monkeypatch)


def run_filled(folder: Path, *words: str):
    """Run the program of a release in a process that has packages, and cannot import this repository."""
    code = f"import runpy, sys; sys.argv[1:] = {list(words)}; runpy.run_path('fill.py', run_name='__main__')"
    lost = "from importlib.util import find_spec; assert find_spec('jobs') is find_spec('pipeline') is None"
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"{lost}\n{code}"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_release_is_checked_and_fills_as_the_registered_version_does(registry, tmp_path, capsys):
    assert main(["release", f"{NAME}@candidate", str(tmp_path / "out.tar")]) == 0
    digest = capsys.readouterr().out.rsplit(maxsplit=1)[-1]
    assert main(["release", f"{NAME}@1", str(tmp_path / "again.tar")]) == 0
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "again.tar").read_bytes()
    with tarfile.open(tmp_path / "out.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / f"{NAME}-1"
    assert hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest() == digest
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder / "model", check=True)
    listed = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == sum(path.is_file() for path in folder.rglob("*")) - 1
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "| Licence of the data | none |" in (folder / "MODEL_CARD.md").read_text()
    image, mask = photograph(1, 32), np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "hole.png")
    paths = [str(tmp_path / name) for name in ("photo.png", "hole.png", "filled.png")]
    done = run_filled(folder, *paths)
    assert done.returncode == 0, done.stderr
    expected = load_model(NAME, "1")(image[None], mask[None, ..., None] // 255)[0]
    assert np.array_equal(np.array(Image.open(tmp_path / "filled.png")), expected)
    (code,) = folder.glob("model/code/*/jobs/evaluation/inference.py")
    for path, change, problem in (
        (code, lambda content: content + b"\n", "was changed"),
        (folder / "model/data/model/weights.safetensors", lambda content: content[:-1] + b"x", "was changed"),
        (folder / "model/code/torch.py", lambda content: b"raise SystemExit('run')", "is not in SHA256SUMS"),
        (code.parent / "__pycache__/inference.cpython-311.pyc", lambda content: b"run", "is not in SHA256SUMS"),
    ):
        before = path.read_bytes() if path.exists() else b""
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(change(before))
        done = run_filled(folder, *paths)
        assert (done.returncode, problem in done.stderr) == (1, True), path
        assert path.name in done.stderr
        path.write_bytes(before) if before else path.unlink()


def test_a_version_of_pictures_that_were_taken_down_is_not_released(registry, tmp_path, capsys):
    mlflow.MlflowClient().set_model_version_tag(NAME, "1", "takedown", "train/003")
    assert main(["release", f"{NAME}@1", str(tmp_path / "out.tar")]) == 1
    assert "taken down since (train/003); train again" in capsys.readouterr().err
    assert not (tmp_path / "out.tar").exists()


def test_a_place_that_cannot_be_written_is_named_first(registry, tmp_path, capsys):
    for name in ("out.zip", "no/out.tar"):
        assert main(["release", f"{NAME}@1", str(tmp_path / name)]) == 1
        assert f"{name}: give the name of a .tar in a folder that exists" in capsys.readouterr().err
