"""What Ray sends to its workers of a checkout that is full of data: the sources that git tracks, and nothing else."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from jobs.cluster import launch

ROOT = Path(__file__).resolve().parents[2]
LEFT_BY_RUNS = (
    ".dvc/cache/files/md5/00/11", ".dvc/config.local", ".dvc/tmp/lock", ".git/objects/00/11", ".pytest_cache/README.md",
    ".ruff_cache/1", ".venv/lib/torch.so", "curves/csa/joint.tsv", "jobs/__pycache__/launch.cpython-311.pyc",
    "metrics/csa.json", "mlartifacts/1/model", "mlflow.db", "mlflow.db-wal", "mlruns/1/model",
    "models/csa/weights.safetensors", "report/index.html", "results/csa/summary.json", "runs/csa/events.jsonl",
    "shards/.image.partial/train/image-000000.tar", "shards/image/train/image-000000.tar", "slurm-12.log",
)  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    """A copy of this checkout's tracked files, amid what runs leave; with the names of the former."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listing.split("\0") if name and (ROOT / name).is_file()}
    for name in tracked:
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for name in LEFT_BY_RUNS:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not to be shipped")
    return tmp_path / "checkout", tracked


def test_the_tracked_sources_are_shipped_and_nothing_else(checkout, tmp_path):
    folder, tracked = checkout
    package = tmp_path / "package.zip"
    excluded = get_runtime_env_default_excludes() + launch._EXCLUDED  # as `ray.init` joins them
    create_package(str(folder), package, include_gitignore=True, excludes=excluded)
    shipped = set(zipfile.ZipFile(package).namelist())
    assert shipped == {name for name in tracked if not name.startswith(".dvc/")}
    assert {
        "jobs/cluster/launch.py",
        "jobs/training/loop.py",
        "datasets/shards/records.py",
        "masks/drawn.py",
    } <= shipped
