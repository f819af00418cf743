"""The address of the tracking server or database: read, resolved and printed here alone. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from files.addresses import display_address
from files.checkout import permanent_checkout
from files.errors import UserError

_VARIABLE = "MLFLOW_TRACKING_URI"
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
_DATABASES = ("postgresql", "mysql", "mssql")
_QUERY = re.compile(r"\?\w+=[^/?]*$")


class AddressError(UserError):
    """The tracking address cannot be used. The message says why and what to do."""


def tracking_uri() -> str:
    """Return the address of the tracking server, database or folder, as MLflow takes it.

    It is `MLFLOW_TRACKING_URI`, or a SQLite database in the checkout if that is unset or empty. Relative paths are
    relative to the permanent checkout.
    Raises AddressError for an address that MLflow cannot use or that would keep nothing.
    """
    address = os.environ.get(_VARIABLE, "").strip()
    if not address:
        return _sqlite_uri(permanent_checkout() / "mlflow.db")
    scheme = address.partition(":")[0].lower() if re.match(r"[A-Za-z][\w+.-]*:", address) else ""
    if scheme.partition("+")[0] == "sqlite":
        return _resolve_sqlite(address)
    if scheme.partition("+")[0] in _DATABASES or scheme in _SERVERS or address in _SERVERS:
        return address
    if scheme in ("", "file"):
        return _resolve_folder(address).as_uri()
    raise AddressError(
        f"MLFLOW_TRACKING_URI is {display_address(address)}, which is no address of a tracking server; set it to "
        "http://..., https://..., sqlite:///<path>, a database's address or a folder, or unset it"
    )


def database_file(uri: str) -> Path | None:
    """Return the path of a SQLite database; None for any other address.

    uri: of `tracking_uri`.
    """
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///(/[^?]*)(?:\?.*)?", uri, re.DOTALL)
    return Path(unquote(match[1])) if match else None


def artifact_folder(uri: str) -> Path | None:
    """Return the folder for the files of new experiments; None if the server or folder of `uri` chooses it.

    A database has no place for files. MLflow would take ./mlruns, which may be in a temporary copy of the checkout.
    uri: of `tracking_uri`.
    """
    if path := database_file(uri):
        return path.parent / "mlartifacts"
    is_database = uri.partition(":")[0].partition("+")[0] in _DATABASES
    return permanent_checkout() / "mlartifacts" if is_database else None


def browse_hint(address: str) -> str:
    """Return what a user does to look at the runs: an address to open, or a command for a shell.

    address: a tracking URI. A database has no pages of its own, so `mlflow ui` has to serve them.
    """
    shown = display_address(address)
    if address.startswith(("http://", "https://")):
        return f"open {shown}"
    if address.partition(":")[0].partition("+")[0] in _DATABASES and shown != address:
        return f'mlflow ui --backend-store-uri "${_VARIABLE}"'  # which has the password
    return f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def _resolve_sqlite(address: str) -> str:
    match = re.fullmatch(r"(sqlite(?:\+\w+)?):///(.+)", address, re.IGNORECASE | re.DOTALL)
    if not match or match[2].startswith(":memory:"):
        raise AddressError(
            f"MLFLOW_TRACKING_URI is {display_address(address)}, which names no file; set it to "
            "sqlite:///<relative path> or sqlite:////<absolute path>"
        )
    if match[2].startswith("file:"):
        raise AddressError(f"MLFLOW_TRACKING_URI is {display_address(address)}; write the path without file:")
    query = _QUERY.search(match[2])
    written = match[2].removesuffix(query[0]) if query else match[2]
    return _sqlite_uri(_decode(written)) + (query[0] if query else "")


def _resolve_folder(address: str) -> Path:
    """Return the absolute folder of a path, file:path or file:///path."""
    written = re.sub(r"^file:(?://(?:localhost)?(?=/))?", "", address, flags=re.IGNORECASE)
    if written != address and written.startswith("//"):
        raise AddressError(f"MLFLOW_TRACKING_URI is {address}; a folder of this machine is file:///<absolute path>")
    return _decode(written) if written != address else _in_checkout(written)


def _decode(written: str) -> Path:
    """Return the path that a URL means: decoded, unless only the folder as it is written exists."""
    literal, decoded = _in_checkout(written), _in_checkout(unquote(written))
    return literal if literal.parent.is_dir() and not decoded.parent.is_dir() else decoded


def _in_checkout(path: str) -> Path:
    """Return an absolute path; a relative one is in the permanent checkout."""
    return (permanent_checkout() / Path(path).expanduser()).resolve()


def _sqlite_uri(path: Path) -> str:
    """Return the address of a database file.

    SQLAlchemy decodes %xx in it and takes ? for the begin of a query. With the name of the driver MLflow leaves the
    address alone; without, it would make the folder of the encoded path.
    """
    encoded = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{encoded}" if encoded == str(path) else f"sqlite+pysqlite:///{encoded}"
