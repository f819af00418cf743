"""The address of the tracking server. Imports nothing heavy."""

from __future__ import annotations

import os

from files.checkout import permanent_checkout


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the address of the SQLite database in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{permanent_checkout() / 'mlflow.db'}"
