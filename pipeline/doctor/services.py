"""Look whether the tracking server and the Ray cluster answer."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from files.errors import UserError
from jobs.tracking.address import database_file, display_address, tracking_uri
from pipeline.doctor.findings import Finding

_SECONDS = 3.0
_RAY_PORTS = {"ray": 10001, "": 6379}  # of a client, and of the cluster itself


def check_services() -> Iterator[Finding]:
    """Yield findings on the tracking server and on Ray."""
    yield check_tracking()
    yield check_ray(os.environ.get("RAY_ADDRESS", ""))


def check_tracking() -> Finding:
    """Look whether the tracking server answers, or its database or folder can be written to."""
    try:
        uri = tracking_uri()
    except UserError as error:
        return Finding("tracking", "broken", "MLFLOW_TRACKING_URI cannot be used", str(error))
    shown = display_address(uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri, shown)
    path = database_file(uri) or Path(urlsplit(uri).path)
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    if "://" in uri and not uri.startswith(("sqlite", "file")):
        return Finding("tracking", "fine", f"{shown}; a database, which is not asked here")
    if not os.access(existing, os.W_OK):
        return Finding("tracking", "broken", f"{shown} cannot be written to", f"chmod or chown {existing}")
    return Finding("tracking", "fine", shown if path.exists() else f"{shown}; it is made by the first training")


def _check_server(uri: str, shown: str) -> Finding:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_SECONDS):
            return Finding("tracking", "fine", f"{shown} answers")
    except urllib.error.HTTPError as error:
        return Finding(
            "tracking", "missing", f"{shown} answers {error.code} {error.reason}", "check the address and login"
        )
    except OSError:
        remedy = "start it, or unset MLFLOW_TRACKING_URI; trainings go on, and wait for: python -m pipeline deliver"
        return Finding("tracking", "missing", f"{shown} does not answer", remedy)


def check_ray(address: str) -> Finding:
    """Look whether a Ray cluster answers. address: RAY_ADDRESS, or ""."""
    if not address:
        return Finding("Ray", "fine", "RAY_ADDRESS is not set: workers are processes of this machine")
    if address in ("auto", "local"):
        return Finding("Ray", "fine", f"RAY_ADDRESS is {address}")
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        place = parts.hostname or "", parts.port or _RAY_PORTS.get(parts.scheme, 6379)
        with socket.create_connection(place, timeout=_SECONDS):
            return Finding("Ray", "fine", f"{address} answers")
    except (OSError, ValueError):
        return Finding("Ray", "broken", f"{address} does not answer", "start the cluster, or unset RAY_ADDRESS")
