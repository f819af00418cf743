"""A second checkout of the repository, with a job of its own, by the commands of docs/getting_started.md."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.photographs import photograph
from files.pictures import encode_png
from pipeline.params import read_params

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    *("ingest.size=32", "cluster.num_workers=0", "cluster.train_workers=0", "evaluate.baselines=mean_colour"),
    "evaluate.bootstrap_samples=10",
    *(f"generators.edge_connect.{value}" for value in ("width=4", "residual_blocks=1", "batch_size=2")),
    *(f"generators.edge_connect.{phase}_steps=1" for phase in ("edges", "image", "inpaint", "joint")),
)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of the last commit, with the changes of the working tree. It runs in the environment of the tests."""
    folder = tmp_path / "second checkout"
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A. U. Thor")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "author@example.org")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    changes = subprocess.run(["git", "diff", "--binary", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    if changes:
        subprocess.run(["git", "apply"], cwd=folder, input=changes, check=True)
        subprocess.run(["git", "commit", "--quiet", "--all", "--message=changes"], cwd=folder, check=True)
    return folder


def run(folder, *words):
    """What a command prints."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(words, cwd=folder, timeout=600, check=False, **streams)
    assert done.returncode == 0, done.stdout
    return done.stdout


def commands():
    """The commands below the heading of the page, as lists of words."""
    page = (ROOT / "docs/getting_started.md").read_text().partition("## Compare two runs")[2].partition("\n## ")[0]
    return [
        shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]


@pytest.mark.slow
def test_two_runs_are_compared_by_the_commands_of_the_page(clone, tmp_path):
    pictures = tmp_path / "Photos (2019), Köln"
    pictures.mkdir()
    for number in range(12):
        (pictures / f"{number:03d}.png").write_bytes(encode_png(photograph(number, 40)))
    configure, first, second, diff = commands()
    run(clone, *(word.replace("/data/pictures", str(pictures)) for word in configure), *TINY)
    job = (clone / "params.yaml").read_text()
    run(clone, *first)
    assert (clone / "params.yaml").read_text() == job
    shards = {path: path.stat().st_mtime_ns for path in (clone / "shards").rglob("*.tar")}
    assert shards
    run(clone, *second)
    found = read_params(clone / "params.yaml")
    assert found.dataset.root == str(pictures)
    assert list(found.generators) == ["edge_connect"]
    assert (found.generators["edge_connect"].inpaint_steps, found.ingest.size) == (41, 32)
    assert {path: path.stat().st_mtime_ns for path in (clone / "shards").rglob("*.tar")} == shards
    compared = json.loads(run(clone, *diff, "--json"))
    changed = compared["params"]["params.yaml"]
    assert changed == {"generators.edge_connect.inpaint_steps": {"old": 1, "new": 41, "diff": 40}}
    assert "metrics/edge_connect.json" in compared["metrics"]
    assert "inpaint_steps" in run(clone, *diff)
