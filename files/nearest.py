"""Suggest the name that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return "did you mean <name>?" with the most similar known name.

    otherwise: text to return if no known name is similar; by default "there are <all known names>".
    """
    known = list(known)
    similar = difflib.get_close_matches(name, known, n=1)
    if similar:
        return f"did you mean {similar[0]}?"
    return f"there are {', '.join(known)}" if otherwise is None else otherwise
