"""Check, before a stage does any work, that its outputs can be put in their places."""

from __future__ import annotations

import os
from pathlib import Path

from files.checkout import ROOT
from files.durable import check_replaceable
from files.errors import UserError

_OUTPUTS = (
    "shards",
    "shards/edges",
    "models",
    "curves",
    "results",
    "metrics",
    "report",
    "reports",
    "suites",
    "provenance",
)


class PlaceError(UserError):
    """Something cannot be in the place where it is. The message says where it belongs."""


def check_home() -> None:
    """Raise PlaceError unless this user has a home folder. Ray, torch and the cache of shards keep files there."""
    try:
        Path.home()
    except RuntimeError:
        raise PlaceError(
            f"user {os.getuid()} has no home folder; set HOME to a folder that can be written to, and USER to any name"
        ) from None


def check_checkout() -> None:
    """Raise PlaceError if the path of the checkout is no UTF-8, which params, manifests and MLflow require."""
    try:
        str(ROOT).encode()
    except UnicodeEncodeError:
        raise PlaceError(f"the path of the checkout, {str(ROOT)!r}, is no UTF-8; move or rename it") from None


def check_outputs() -> None:
    """Raise PlaceError if a folder of outputs is a link: DVC refuses it, but only after the work is done.

    Raises UserError for a folder that this user cannot write to.
    """
    for folder in map(Path, _OUTPUTS):
        for path in (folder, *(folder.iterdir() if folder.is_dir() else ())):
            if path.is_symlink() and not path.is_file():  # a file may be DVC's own link into its cache
                raise PlaceError(
                    f"{path} is a link, which DVC refuses after the work is done; remove it, and to keep outputs on "
                    "another disk move DVC's cache there: see docs/data.md"
                )
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            check_replaceable(folder)
