"""A registry with versions of an untrained U-Net, of which every test has a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from tests.jobs.tracking.models import register

NAME = "inpaint-unet"


def make_registry(folder: Path, database: Path, num_versions: int) -> Path:
    """Register versions 1, 2, ... of a tiny U-Net. Returns the folder of tracking database, history and models.

    database: an empty tracking database.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(database, folder / "mlflow.db")
        _track_in(folder, patch)
        for number in range(1, num_versions + 1):
            (folder / str(number)).mkdir()
            assert register(folder / str(number), "unet", seed=number) == str(number)
    return folder


def enter_copy(made: Path, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Copy a registry and work in the copy. Files of models and runs stay where they are: restore what is changed."""
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("mlartifacts"), dirs_exist_ok=True)
    patch.chdir(folder)
    _track_in(folder, patch)
    return folder


def _track_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    address = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv("MLFLOW_TRACKING_URI", address)
    mlflow.set_tracking_uri(address)  # an earlier test may have set another, which goes before the variable
