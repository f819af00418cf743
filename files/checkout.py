"""Where the code is."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("datasets", "files", "jobs", "masks", "pipeline")
"""The folders of code."""


def permanent_checkout() -> Path:
    """The checkout that stays: DVC runs queued experiments in copies of it, which it removes."""
    return Path(os.environ.get("DVC_ROOT") or ROOT)
