"""Text that every file can hold."""

from __future__ import annotations


def encodable(text: str) -> str:
    """Replace lone surrogates, which file names that are not UTF-8 contain and which UTF-8 cannot encode, by "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
