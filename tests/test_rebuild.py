"""A registered version says what it was made from, though its checkout changed meanwhile, and how to make it again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from benchmarks.photographs import photograph
from files.checkout import FOLDERS
from files.durable import file_digest
from files.pictures import encode_png
from jobs.generators import card

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = "deepfill_v2"
WEIGHTS = Path("models", GENERATOR, "weights.safetensors")
# What a user does while it trains, at the first batch: commit everything, and edit on.
MEANWHILE = """
import pathlib, subprocess, sys
if pathlib.Path("meanwhile").exists() and "train" in sys.argv:  # other stages import a recipe, too
    pathlib.Path("meanwhile").unlink()
    pathlib.Path("pipeline/progress.py").write_text(pathlib.Path("pipeline/progress.py").read_text() + "# edited\\n")
    subprocess.run(["git", "commit", "--quiet", "--all", "--message=meanwhile"], check=True)
"""


# An edit that is not committed, and changes the weights.
EDIT = """
from dataclasses import replace
from files import meanwhile
from files.mine import WEIGHT
build_before = build
def build(config, **options):
    return build_before(replace(config, l1_weight=WEIGHT), **options)
"""


def run(command):
    """What a command line prints."""
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed checkout of this code with a small job, beside a folder of pictures."""
    folder = tmp_path / "checkout"
    for name in ("conf", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "requirements.lock", "tombstones.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for number in range(12):
        path = tmp_path / "pictures" / ("val" if number % 5 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(photograph(number, 32)))
    yaml = YAML(typ="safe", pure=True)
    tree = yaml.load(ROOT / "params.yaml")
    tree["dataset"] = {"name": "folder", "root": str(tmp_path / "pictures"), "watch": str(tmp_path / "pictures")}
    tree["ingest"] |= {"size": 32, "records_per_shard": 4}
    tree["cluster"] |= {"num_workers": 0, "train_workers": 0}
    values = {**vars(card(GENERATOR).Config.tiny()), "steps": 4}
    tree["generators"] = {GENERATOR: values}
    yaml.dump(tree, folder / "params.yaml")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A. U. Thor")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "author@example.org")
    run("git init --quiet && git add --all && git commit --quiet --message=small")
    return folder


def newest_version():
    return mlflow.MlflowClient().get_model_version_by_alias(f"inpaint-{GENERATOR}", "candidate")


@pytest.mark.slow
def test_what_a_version_says_is_of_its_start_and_its_rebuild_command_rebuilds_it(checkout, tmp_path):
    first = run("git rev-parse HEAD").strip()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("seed: 20181101", "seed: 7").replace("steps: 4", "steps: 5"))
    recipe = Path("jobs/generators", GENERATOR, "recipe.py")
    recipe.write_text(recipe.read_text() + EDIT)
    Path("files/mine.py").write_text("WEIGHT = 3.0\n")  # new, and not added to git
    Path("files/meanwhile.py").write_text(MEANWHILE)
    Path("meanwhile").touch()
    run(f"dvc repro train@{GENERATOR}")
    assert not Path("meanwhile").exists()
    assert run("git rev-parse HEAD").strip() != first

    version = newest_version()
    weights = version.tags["weights_sha256"]
    assert weights == file_digest(WEIGHTS)
    assert version.tags["git_commit"] == first
    assert version.tags["git_dirty"] == "True"
    changes = "files/meanwhile.py, files/mine.py, "
    changes += f"jobs/generators/{GENERATOR}/recipe.py, params.yaml"
    assert version.tags["git_changes"] == changes
    tracked = mlflow.MlflowClient().get_run(version.run_id)
    assert {tracked.data.tags[name] for name in ("git_commit", "git_changes")} == {first, changes}
    archive = mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path="code/code.zip")
    assert file_digest(Path(archive)) == version.tags["code_sha256"]

    clone = tmp_path / "clone"
    run(f"git clone --quiet . {clone}")
    os.chdir(clone)
    command = version.tags["rebuild"]
    assert command.startswith(f"git checkout {first} && make setup && ")
    assert command.endswith(f" && dvc repro train@{GENERATOR}")
    # The environment is that of this test.
    run(
        command.replace("make setup", "true").replace(". .venv/bin/activate", "true").replace("checkout", "checkout -q")
    )
    assert file_digest(WEIGHTS) == weights
    rebuilt = newest_version()
    assert rebuilt.version != version.version
    assert rebuilt.tags["identity"] == version.tags["identity"]
    assert json.loads(Path("models", GENERATOR, "receipt.json").read_text())["seed"] == 7
    os.chdir(checkout)
    assert "links are as they were recorded" in run(f"python -m pipeline verify --rebuild inpaint-{GENERATOR}@1")
    assert newest_version().version == rebuilt.version
    other = subprocess.run(
        [sys.executable, "-m", "pipeline", "verify", "--rebuild", f"inpaint-{GENERATOR}@1"],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 1, "another processor, as PyTorch sees it"
    assert f"broken: models/{GENERATOR}/receipt.json, rebuilt" in other.stdout, "it names the weights' digest"
    assert f"  {WEIGHTS}, rebuilt" in other.stdout
    assert "the environment differs: variable ATEN_CPU_CAPABILITY was not recorded, is default;" in other.stdout
    os.chdir(clone)
    Path("files/seeds.py").write_text(Path("files/seeds.py").read_text() + "# work of mine\n")
    training = command.partition(" restore ")[2].split()[0]
    refused = subprocess.run(
        [sys.executable, "-m", "pipeline", "restore", training], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "restore: files/seeds.py would be replaced, and git's commit does not have what is there" in refused.stderr
