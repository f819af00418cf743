"""Texts that params.yaml may not contain, because its readers would not understand them alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

UNSET = "???"
"""Value of a preset in conf/ that the user must give."""

BLOCKS = ("dataset", "cluster", "generators")
"""Keys of params.yaml that `configure` also takes as words, such as dataset=folder."""

_CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line and paragraph separators


def find_wrong_texts(tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the dotted key of each text that is refused, with the problem and the remedy.

    tree: the content of params.yaml as plain data.
    """
    for block in BLOCKS:
        if isinstance(text := tree.get(block), str):
            yield block, f"must be a mapping, got {text!r}; restore it with: {_configure(block, text)} ..."
    for key, text in _texts(tree, ""):
        if problem := _problem(key, text):
            yield key, problem


def _problem(key: str, text: str) -> str | None:
    if text == UNSET:
        return f"is not set; set it with: {_configure(key, '...')}"
    if text.startswith("~"):
        return f"begins with ~, which DVC does not replace, got {text!r}; write the whole path, as configure does"
    if "${" in text:
        return f"contains ${{, which DVC would replace, got {text!r}; rename the file or folder, or use a link to it"
    if any(unicodedata.category(character) in _CONTROL for character in text):
        return f"has a control character, which YAML does not keep, got {text!r}; rename the file or folder"
    if not text:
        return "is empty; write a value"
    return None


def _configure(key: str, value: str) -> str:
    return f"python -m pipeline configure {key}={value}"


def _texts(tree: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of each text of a tree."""
    if isinstance(tree, str):
        yield place, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield from _texts(value, f"{place}.{name}".lstrip("."))
