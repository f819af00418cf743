"""Several trainings of one checkout: stages at once, and a queue of experiments. All with the real DVC and MLflow."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from dvc.lock import Lock

from benchmarks.photographs import photograph
from files.checkout import FOLDERS
from files.pictures import encode_png

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    *("dataset=folder", "cluster.num_workers=0", "cluster.train_workers=0", "generators=context_encoder,deepfill_v2"),
    *(f"generators.context_encoder.{value}" for value in ("width=8", "batch_size=4", "steps=4")),
    *(f"generators.deepfill_v2.{value}" for value in ("width=4", "d_width=4", "batch_size=4", "steps=4")),
)

INPUTS = ("requirements.lock", "tombstones.jsonl")


def run(*command, fails=False):
    """What a command prints."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, timeout=900, check=False, **streams)
    assert bool(done.returncode) == fails, done.stdout
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout of this code with a small job and its shards, everything committed."""
    folder = tmp_path / "checkout"
    for name in ("conf", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "params.yaml",
        "requirements.lock",
        "tombstones.jsonl",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A. U. Thor")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "author@example.org")
    for number in range(20):
        path = tmp_path / "pictures" / ("val" if number % 5 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(photograph(number, 64)))
    run(sys.executable, "-m", "pipeline", "configure", *SMALL, f"dataset.root={tmp_path / 'pictures'}")
    run("git", "init", "--quiet")
    run("dvc", "repro", "ingest", "edges", "semantics")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message=small")
    return folder


def runs(checkout):
    """The tracked runs of the checkout's own database."""
    client = mlflow.MlflowClient(f"sqlite:///{checkout}/mlflow.db")
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


@pytest.mark.slow
def test_stages_of_two_generators_run_at_once(checkout):
    """By the line of docs/training.md; a third DVC keeps the repository locked longer than DVC usually waits."""
    (line,) = re.findall(r"\| (xargs .*)", (ROOT / "docs" / "training.md").read_text())
    lock = Lock(str(checkout / ".dvc/tmp/lock"))
    lock.lock()
    both = subprocess.Popen(f"printf '%s\\n' context_encoder deepfill_v2 | {line}", shell=True)
    assert "Unable to acquire lock" in run("dvc", "status", fails=True)
    time.sleep(2)
    assert both.poll() is None
    lock.unlock()
    assert both.wait(timeout=900) == 0
    assert json.loads(run("dvc", "status", "--json", "train")) == {}
    locked = (checkout / "dvc.lock").read_text()
    assert all(f"train@{name}:" in locked for name in ("context_encoder", "deepfill_v2"))
    first, second = runs(checkout)
    assert {first.data.tags["generator"], second.data.tags["generator"]} == {"context_encoder", "deepfill_v2"}
    assert max(first.info.start_time, second.info.start_time) < min(first.info.end_time, second.info.end_time)


@pytest.mark.slow
def test_queued_experiments_are_runs_of_one_database(checkout):
    """DVC runs them in copies of the checkout, which it removes; what is to stay lies in the checkout."""
    job = (checkout / "params.yaml").read_bytes()
    queue = ("dvc", "exp", "run", "--queue", "--set-param=cluster.start_anew=true")
    widths = "--set-param=generators.context_encoder.width=8,12"
    run(*queue, "--set-param=~generators.deepfill_v2", widths, "train@context_encoder")
    run(*queue, "--set-param=~generators.context_encoder", "train@deepfill_v2")
    run("dvc", "exp", "run", "--run-all", "--jobs=2")
    assert (checkout / "params.yaml").read_bytes() == job
    assert len(run("dvc", "exp", "list", "--name-only").split()) == 3
    assert not list((checkout / ".dvc/tmp/exps").glob("*/dvc.yaml"))
    found = runs(checkout)
    assert sorted((each.data.tags["generator"], each.data.params["width"]) for each in found) == [
        ("context_encoder", "12"),
        ("context_encoder", "8"),
        ("deepfill_v2", "4"),
    ]
    for each in found:
        assert each.info.status == "FINISHED"
        assert each.info.artifact_uri.startswith((checkout / "mlartifacts").as_uri())
        parameters = json.loads(mlflow.artifacts.load_text(f"{each.info.artifact_uri}/params.json"))
        assert parameters["generators"].keys() == {each.data.tags["generator"]}
