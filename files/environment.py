"""Environment variables that keep libraries from contacting their makers' servers."""

from __future__ import annotations

import os

QUIET_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # albumentations asks the package index for a newer version when it is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",  # mlflow reports which of its functions are called
    "RAY_USAGE_STATS_ENABLED": "0",  # ray reports every cluster that starts
    "DO_NOT_TRACK": "1",  # a convention that further libraries follow
}


def set_quiet_environment() -> None:
    """Set these variables in this process, and so in its children, unless the user has set them.

    Call it before the library is imported: some read their variable only then.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
