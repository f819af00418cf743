"""A new paper is one folder and one line of params.yaml: no other file lists the papers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from files.checkout import FOLDERS
from jobs.generators import PRESETS, preset_config
from pipeline.params import ParamsError, read_params

ROOT = Path(__file__).resolve().parent.parent.parent.parent

CARD = '''"""Toy: a generator of two convolutions."""

from dataclasses import dataclass

PAPER = "Toy"
YEAR = 2026
NEEDS = ()
PARAMETERS = {}


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 64
    batch_size: int = 8
    steps: int = 1000

    @classmethod
    def tiny(cls):
        return cls(width=2, batch_size=2, steps=2)

    @classmethod
    def small(cls):
        return cls(width=32, steps=20_000)

    @classmethod
    def demo(cls):
        return cls(width=4)
'''
RECIPE = """import torch
from torch import nn

from jobs.recipe.contract import Phase, Recipe, Update, adam


def build(config):
    networks = {"generator": nn.Sequential(
        nn.Conv2d(4, config.width, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(config.width, 3, 4, stride=2, padding=1), nn.Tanh())}

    def fill(networks, batch):
        return {"output": networks["generator"](torch.cat((batch.image * (1 - batch.mask), batch.mask), dim=1))}

    def terms(networks, batch, outputs):
        return {"l1": (outputs["output"] - batch.image).abs().mean()}

    update = Update(networks=("generator",), terms=terms)
    return Recipe(networks=networks, make_optimizers=lambda: adam(networks, 1e-3, 1e-3, (0.9, 0.999)),
                  inpaint=fill, multiple=2,
                  phases=(Phase(name="train", steps=config.steps, forward=fill, updates=(update,)),),
                  batch_size=config.batch_size)
"""


@pytest.fixture
def checkout(tmp_path):
    """Copy the code, add a folder `toy`, and name it in params.yaml."""
    for name in (*FOLDERS, "benchmarks", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "pyproject.toml", "requirements.lock", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / "jobs/generators/toy"
    folder.mkdir()
    (folder / "__init__.py").write_text(CARD)
    (folder / "recipe.py").write_text(RECIPE)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("generators:\n", "generators:\n  toy: {preset: demo}\n"))
    return tmp_path


def run(checkout, *command):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, check=False, timeout=300, **streams
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_new_folder_passes_the_contract_and_is_read_from_params(checkout):
    contract = "tests/jobs/generators/test_contract.py"
    chosen = "toy and not two_processes"  # that one computes the gradients of all papers first
    assert "18 passed" in run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", contract, "-k", chosen)
    code = "from pipeline.params import read_params\nprint(read_params().generators['toy'])"
    assert run(checkout, "-c", code).strip() == "Config(width=4, batch_size=8, steps=1000)"


def write_generators(path: Path, block: str) -> Path:
    text = (ROOT / "params.yaml").read_text()
    first, last = text.index("generators:\n"), text.index("\nseed:")
    path.write_text(f"{text[:first]}generators:\n  edge_connect: {block}{text[last:]}")
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_values_of_params_are_laid_over_those_of_the_preset(tmp_path, preset):
    base = preset_config("edge_connect", preset)
    path = write_generators(tmp_path / "params.yaml", f"{{preset: {preset}, image_steps: 7}}")
    config = read_params(path).generators["edge_connect"]
    assert config.image_steps == 7
    assert config.width == base.width
    assert config.joint_learning_rate == base.joint_learning_rate


@pytest.mark.parametrize("value", ["fast", "tiny", "3", "[demo]", "null"])
def test_an_unknown_preset_is_refused(tmp_path, value):
    path = write_generators(tmp_path / "params.yaml", f"{{preset: {value}}}")
    with pytest.raises(ParamsError, match=r"edge_connect\.preset: must be one of paper, small, demo, got"):
        read_params(path)
