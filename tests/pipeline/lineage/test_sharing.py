"""Data, models and report reach a second clone through a remote of DVC alone."""

import os
import sys

import pytest

from files.durable import file_digest
from tests.pipeline.lineage.clones import git, prepare_clone, run
from tests.pipeline.lineage.finished import GENERATOR

OUTPUTS = ("report/index.html", f"models/{GENERATOR}/weights.safetensors", f"results/{GENERATOR}/summary.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_second_clone_has_the_report_by_dvc_pull_alone_and_verifies(kind, tmp_path, empty_database, request):
    if kind == "s3":
        request.getfixturevalue("s3")
    first, second = tmp_path / "first", tmp_path / "second"
    prepare_clone(first, empty_database)
    run(first, "dvc", "repro")
    remote = str(tmp_path / "remote") if kind == "disk" else "s3://bucket/prefix"
    run(first, "dvc", "remote", "add", "--default", "there", remote)
    if kind == "s3":
        run(first, "dvc", "remote", "modify", "there", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    run(first, "dvc", "push", "--quiet")
    git(first, "add", "dvc.lock", ".dvc/config")
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
