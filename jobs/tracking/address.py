"""The address of the tracking server. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import shlex

from files.checkout import permanent_checkout


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the address of the SQLite database in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{permanent_checkout() / 'mlflow.db'}"


def display_address(address: str) -> str:
    """Return an address as it may be printed: without user, password, query and fragment."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest = re.split(r"[?#]" if scheme in ("http", "https") else r"[?]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def browse_hint(address: str) -> str:
    """Return what a user does to look at the runs: an address to open, or a command for a shell.

    address: a tracking URI. A database has no pages of its own, so `mlflow ui` has to serve them.
    """
    if address.startswith(("http://", "https://")):
        return f"open {display_address(address)}"
    return f"mlflow ui --backend-store-uri {shlex.quote(display_address(address))}"
