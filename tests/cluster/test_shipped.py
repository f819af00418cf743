"""What Ray sends to its workers of a checkout full of data: the code that git tracks, as it was at the start."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from files.checkout import DECLARATIONS, PYTHON_FOLDERS
from files.code_archive import process_code

ROOT = Path(__file__).resolve().parents[2]
LEFT_BY_RUNS = (
    ".dvc/cache/files/md5/00/11", ".dvc/config.local", ".dvc/tmp/lock", ".env", ".git/objects/00/11",
    ".pytest_cache/README.md", ".ruff_cache/1", ".venv/lib/torch.so", "curves/csa/joint.tsv", "data/1.jpg",
    "env/lib/python3.11/site-packages/six.py", "jobs/__pycache__/launch.cpython-311.pyc", "jobs/.secrets/key.py",
    "jobs/env/bin/activate_this.py", "jobs/env/lib/python3.11/site-packages/six/__init__.py", "jobs/pictures/1.jpg",
    "metrics/csa.json", "mlartifacts/1/model", "mlflow.db", "mlflow.db-wal", "mlruns/1/model",
    "models/csa/weights.safetensors", "report/index.html", "results/csa/summary.json", "runs/csa/events.jsonl",
    "shards/.image.partial/train/image-000000.tar", "shards/image/train/image-000000.tar", "slurm-12.log",
)  # fmt: skip


@pytest.fixture(params=["git", "no git"])
def checkout(request, tmp_path):
    """A copy of this checkout's tracked files, amid what runs and users leave; with the names of the former."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listing.split("\0") if name and (ROOT / name).is_file()}
    folder = tmp_path / "checkout"
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    if request.param == "git":
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        subprocess.run(["git", "add", "--all", "--force"], cwd=folder, check=True)
    for name in LEFT_BY_RUNS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not to be shipped")
    (tmp_path / "big").mkdir()
    (tmp_path / "big/2.py").touch()
    (folder / "jobs/big").symlink_to(tmp_path / "big")
    return folder, tracked


def test_the_code_that_git_tracks_is_shipped_and_nothing_else(checkout, tmp_path):
    """Without git, the modules of the packages."""
    folder, tracked = checkout
    code = tmp_path / "code.zip"
    code.write_bytes(process_code(folder).archive)
    shipped = zipfile.ZipFile(code).namelist()
    expected = {name for name in tracked if name.split("/")[0] in (*PYTHON_FOLDERS, *DECLARATIONS)}
    if not (folder / ".git/HEAD").is_file():
        expected = {name for name in expected if name.endswith(".py") or name in DECLARATIONS}
    assert shipped == sorted(expected)
    assert {"jobs/cluster/launch.py", "jobs/training/loop.py", "datasets/shards/records.py", "tests/faults.py"} <= {
        *shipped
    }


@pytest.mark.slow
def test_every_start_of_ray_ships_the_code_of_the_start_of_the_process(tmp_path):
    """Though it is edited and committed meanwhile. The worker's folder is the archive, unpacked."""
    script = """
import os
from pathlib import Path
from jobs.cluster.launch import map_tasks

def shipped():
    return sorted(map_tasks(Path.read_text, [Path("files/seeds.py"), Path("files/mine.py")], num_workers=2))

Path("files/mine.py").write_text("mine = 1\\n")
before = shipped()
Path("files/mine.py").write_text("mine = 2\\n")
Path("files/seeds.py").unlink()
os.system("git add --all && git commit --quiet --message=meanwhile")
assert shipped() == before and "mine = 1\\n" in before
"""
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    environment = {
        **os.environ,
        "RAY_ADDRESS": "local",
        **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        "workers get the code of this checkout, which differs from its commit: untracked: files/mine.py" in done.stderr
    )
