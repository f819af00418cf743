"""A killed `dvc repro` is finished by the next one, with the outputs and the lock of an undisturbed run."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.pipeline.pictures import tree
from tests.test_dvc import _small_data_set, project  # noqa: F401  (a fixture)

STAGES = ("ingest", "edges", "masks")


def locked() -> dict[str, str]:
    """Path -> MD5 of every output in dvc.lock that is a file."""
    stages = YAML(typ="safe", pure=True).load(Path("dvc.lock"))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


@pytest.mark.slow
def test_killed_five_times_a_rerun_finishes_and_the_lock_has_the_digests_of_the_outputs(project):  # noqa: F811
    from dvc.repo import Repo

    _small_data_set(project)
    began = time.monotonic()
    subprocess.run(["dvc", "repro", *STAGES], check=True, capture_output=True)
    seconds = time.monotonic() - began
    shards, lock = tree(), locked()
    killed = 0
    for number in range(5):
        for path in ("dvc.lock", "shards", "provenance", ".dvc/cache"):
            subprocess.run(["rm", "-rf", path], check=True)
        running = subprocess.Popen(["dvc", "repro", *STAGES], start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            running.wait(seconds * (0.3 + 0.12 * number))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            killed += running.wait() == -signal.SIGKILL
        subprocess.run(["dvc", "repro", *STAGES], check=True, capture_output=True)
        assert tree() == shards
        assert locked() == lock
        with Repo() as repo:
            assert repo.status(list(STAGES)) == {}
        files = {name: md5 for name, md5 in locked().items() if Path(name).is_file()}
        assert files == {name: hashlib.md5(Path(name).read_bytes()).hexdigest() for name in files}
    assert killed >= 3, f"{killed} of 5 runs were killed before their end"
