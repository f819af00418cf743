"""Paths of this checkout and its folders of code."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from files.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("datasets", "files", "jobs", "masks", "pipeline")
"""Folders of code, relative to ROOT."""


class CheckoutError(UserError):
    """Git does not answer about this checkout. The message says what to do."""


def permanent_checkout() -> Path:
    """Return the user's checkout. DVC runs a queued experiment in a temporary copy, which it removes afterwards."""
    return Path(os.environ.get("DVC_ROOT") or ROOT)


def read_commit() -> str:
    """Return the SHA-1 of git's commit; "unknown" outside a git repository."""
    return _ask_git("rev-parse", "HEAD")


def is_modified() -> bool:
    """Return whether a tracked file differs from the commit. Outside a git repository this is not known: True."""
    return bool(_ask_git("status", "--porcelain", "--untracked-files=no"))


def _ask_git(*words: str) -> str:
    result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if "dubious ownership" in result.stderr:
        raise CheckoutError(
            f"git refuses {ROOT}, which another user owns; own it, or run: "
            f"git config --global --add safe.directory {shlex.quote(str(ROOT))}"
        )
    return result.stdout.strip() if result.returncode == 0 else "unknown"
