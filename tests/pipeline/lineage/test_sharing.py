"""Data, models and report reach a second clone through a remote of DVC alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from files.checkout import ROOT
from files.durable import file_digest
from pipeline.params import read_params
from tests.pipeline.lineage.finished import GENERATOR, prepare

OUTPUTS = ("report/index.html", f"models/{GENERATOR}/weights.safetensors", f"results/{GENERATOR}/summary.json")


def run(folder: Path, *words: str) -> str:
    programs = Path(sys.executable).parent
    removed = ("DVC_", "GIT_", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def write_all_values(path: Path) -> None:
    """Write the defaults, too: dvc.yaml names each parameter."""
    tree = read_params(path).to_dict()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(json.loads(json.dumps(tree)), path)


def git(folder: Path, *words: str) -> None:
    run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", *words)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_second_clone_has_the_report_by_dvc_pull_alone_and_verifies(kind, tmp_path, empty_database, request):
    if kind == "s3":
        pytest.importorskip("dvc_s3", reason="DVC's plugin for S3 is not among this project's packages")
        request.getfixturevalue("s3")
    first, second = tmp_path / "first", tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(first))
    prepare(first, empty_database)
    write_all_values(first / "params.yaml")
    run(first, "dvc", "repro")
    remote = str(tmp_path / "remote") if kind == "disk" else "s3://bucket/prefix"
    run(first, "dvc", "remote", "add", "--default", "there", remote)
    if kind == "s3":
        run(first, "dvc", "remote", "modify", "there", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    run(first, "dvc", "push", "--quiet")
    git(first, "add", "dvc.lock", "params.yaml", ".dvc/config")
    git(first, "commit", "--quiet", "--message", "a run")
    git(tmp_path, "clone", "--quiet", str(first), str(second))
    assert not (second / "shards").exists()
    run(second, "dvc", "pull", "--quiet")
    for name in OUTPUTS:
        assert file_digest(second / name) == file_digest(first / name), name
    assert "verified: " in run(second, sys.executable, "-m", "pipeline", "verify", "all")
    shard = second / "shards/image/train/image-000001.tar"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.unlink()
    shard.write_bytes(content)
    with pytest.raises(AssertionError, match="broken: shards/image/train/image-000001"):
        run(second, sys.executable, "-m", "pipeline", "verify", "all")
