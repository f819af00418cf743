"""Where the code is."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The checkout that stays: DVC runs queued experiments in copies of it, which it removes."""
    return Path(os.environ.get("DVC_ROOT") or ROOT)
