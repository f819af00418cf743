"""Commands in clones of this repository, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from files.checkout import ROOT
from pipeline.params import read_params
from tests.pipeline.lineage.finished import prepare


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


def prepare_clone(folder: Path, database: Path) -> Path:
    """Clone this repository and commit a small job in the clone. Returns its folder.

    database: an empty tracking database.
    """
    git(folder.parent, "clone", "--quiet", str(ROOT), str(folder))
    prepare(folder, database)
    write_all_values(folder / "params.yaml")
    git(folder, "commit", "--quiet", "--all", "--message", "a job")
    return folder
