"""Find a registered version by name and alias or number: at the tracking server, or in the records if it is away."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from files.addresses import display_address
from files.errors import UserError
from jobs.runs.history import Version, add_version, read_alias
from jobs.tracking.address import database_file, tracking_uri

log = logging.getLogger(__name__)


class VersionNameError(UserError):
    """A text does not name a registered version, or there is no tracking server to ask for it."""


def split_reference(reference: str) -> tuple[str, str]:
    """Return the name of a registered model, and an alias or a number. Raises VersionNameError for another text."""
    match = re.fullmatch(r"([\w-]+)@([\w-]+)", reference)
    if not match:
        raise VersionNameError(f"{reference!r} names no version; write it as inpaint-lama@candidate or inpaint-lama@3")
    return match[1], match[2]


def find_version(known: Sequence[Version], reference: str) -> Version | None:
    """Return a registered version; None if neither the records nor the server know it.

    The records answer for a number. The server is asked for an alias, which may have been moved since. A version that
    only the server knows is added to the history.
    known: versions of the records, oldest first.
    """
    name, alias = split_reference(reference)
    if alias.isdigit() and (found := _of_number(known, name, alias)):
        return found
    if has_server():
        from jobs.tracking import mlflow_registry as tracking  # takes a second

        try:
            found = tracking.find_version(name, alias)
            add_version(found)
            return found
        except tracking.ModelError:
            return None
        except Exception as error:  # every client and store raises its own kinds
            log.warning("%s; the records answer, and an alias may have been moved since", tracking.reason(error))
    return _of_number(known, name, read_alias(name, alias) or alias)


def _of_number(known: Sequence[Version], name: str, number: str) -> Version | None:
    return next((v for v in reversed(known) if (v.name, v.version) == (name, number)), None)


def check_server(reference: str) -> None:
    """Raise VersionNameError if there is no tracking server to ask for a version. reference: names it."""
    if not has_server():
        raise VersionNameError(
            f"{display_address(tracking_uri())} is missing; set MLFLOW_TRACKING_URI to where {reference} is"
        )


def has_server() -> bool:
    """Tell whether there is something to ask. MLflow would make a database that is not there."""
    path = database_file(tracking_uri())
    return path is None or path.is_file()
