"""Paths of this checkout and its folders of code."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("datasets", "files", "jobs", "masks", "pipeline")
"""Folders of code, relative to ROOT."""


def permanent_checkout() -> Path:
    """Return the user's checkout. DVC runs a queued experiment in a temporary copy, which it removes afterwards."""
    return Path(os.environ.get("DVC_ROOT") or ROOT)
