"""Versions say what they were made from, and a clone that is killed five times ends with the bytes of a quiet one."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from datasets.shards.manifest import read_manifest
from files.durable import file_digest
from jobs.tracking.model_files import DIGESTS
from tests.pipeline.lineage.clones import git, prepare_clone, run
from tests.pipeline.lineage.finished import GENERATOR, MODEL

PIPELINE = (sys.executable, "-m", "pipeline")
KILLED_IN = {"ingest": 1.0, "masks": 0.5, f"train@{GENERATOR}": 2.0, f"evaluate@{GENERATOR}": 1.0, "report": 0.5}
"""Stage -> seconds after its start."""
VARYING = {"report", "provenance/report.json"}
"""Outputs with a date or a time."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, empty_database):
    """A clone with a committed job and all its outputs, and the hashes of its outputs."""
    folder = prepare_clone(tmp_path_factory.mktemp("quiet") / "project", empty_database)
    run(folder, "dvc", "repro")
    return folder, hashes(folder, "outs")


def hashes(folder, kind):
    """Path -> hash of every output or input ("outs" or "deps") in dvc.lock, but for generators that are not trained."""
    stages = YAML(typ="safe", pure=True).load(folder / "dvc.lock")["stages"]
    ours = [stage for name, stage in stages.items() if name.partition("@")[2] in ("", GENERATOR)]
    return {each["path"]: each["md5"] for stage in ours for each in stage.get(kind, ())}


def recompute(path):
    """The hash that DVC gives to a file or folder, from its bytes alone."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = [each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts]
    named = sorted((each.relative_to(path).as_posix(), recompute(each)) for each in files)
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in named])
    return f"{hashlib.md5(listing.encode()).hexdigest()}.dir"


def version(folder, number):
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.get_model_version(MODEL, number)
    return found.tags, found.run_id, Path(client.get_model_version_download_uri(MODEL, number).removeprefix("file://"))


def test_a_clean_tree_is_told_from_a_dirty_one_and_every_digest_is_that_of_its_file(quiet):
    folder, _ = quiet
    tags, run_id, files = version(folder, "1")
    assert tags["git_commit"] == run(folder, "git", "rev-parse", "HEAD").strip()
    assert (tags["git_dirty"], tags["git_changes"]) == ("False", "nothing")
    model = folder / "models" / GENERATOR
    receipt = json.loads((model / "receipt.json").read_bytes())
    recorded = files / "data" / GENERATOR
    of_run = folder / "mlartifacts" / run_id / "artifacts"
    suite = read_manifest(folder / "shards/mask/val")
    edges = read_manifest(folder / "shards/edges/edge/train")
    expected = {
        "weights_sha256": file_digest(model / "weights.safetensors"),
        "packages_lock": file_digest(folder / "requirements.lock"),
        "provenance_sha256": file_digest(recorded / "provenance.json"),
        "params_sha256": file_digest(of_run / "params.json"),
        "code_sha256": file_digest(of_run / "code" / "code.zip"),
        "files_sha256": file_digest(files / DIGESTS),
        "images_manifest": read_manifest(folder / "shards/image/train").digest,
        "edge_manifest": edges.digest,
        "identity": receipt["experiment"],
    }
    assert {name: tags[name] for name in expected} == expected
    assert receipt["edges"] == edges.parameters
    assert suite.digest in json.dumps(json.loads((folder / f"provenance/evaluate/{GENERATOR}.json").read_bytes()))
    assert json.loads((of_run / "params.json").read_bytes())["seed"] == receipt["seed"]
    assert "is the champion now" in run(folder, *PIPELINE, "promote", f"{MODEL}@1")

    recipe = folder / "jobs/generators" / GENERATOR / "recipe.py"
    recipe.write_text(recipe.read_text() + "\n# an edit\n")
    run(folder, "dvc", "repro", f"evaluate@{GENERATOR}")
    tags, _, _ = version(folder, "2")
    assert (tags["git_dirty"], tags["git_changes"]) == ("True", str(recipe.relative_to(folder)))
    with pytest.raises(AssertionError, match=rf"{MODEL}@2 is not promoted: it was trained in a dirty tree: jobs/gen"):
        run(folder, *PIPELINE, "promote", f"{MODEL}@2")
    git(folder, "checkout", "--quiet", str(recipe))


def test_a_second_clone_that_is_killed_five_times_ends_with_the_same_bytes(quiet, tmp_path, empty_database):
    folder = prepare_clone(tmp_path / "project", empty_database)
    for stage, seconds in KILLED_IN.items():
        assert kill_repro(folder, f"Running stage '{stage}'", seconds) == -signal.SIGKILL
    run(folder, "dvc", "repro")
    assert "up to date" in run(folder, "dvc", "status")
    outputs, expected = hashes(folder, "outs"), quiet[1]
    assert {path for path in expected if outputs[path] != expected[path]} <= VARYING
    assert outputs.keys() == expected.keys()
    for kind in ("outs", "deps"):
        recorded = hashes(folder, kind)
        assert {path: recompute(folder / path) for path in recorded} == recorded
    assert "verified: " in run(folder, *PIPELINE, "verify", "all")


def kill_repro(folder, line, seconds):
    """Start `dvc repro`, and kill it with its processes some time after it printed a line. Returns its exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "MLFLOW"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "PYTHONUNBUFFERED": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(["dvc", "repro"], cwd=folder, env=environment, start_new_session=True, **streams) as dvc:
        said = []
        for each in dvc.stdout:
            said.append(each)
            if line in each:
                time.sleep(seconds)
                os.killpg(dvc.pid, signal.SIGKILL)
                break
        assert line in "".join(said)
    return dvc.wait()
