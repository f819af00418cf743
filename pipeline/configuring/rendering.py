"""The text of params.yaml, with a comment for every key."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter, SafeRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline.configuring.comments import MARK, SCHEMA_LINE, UserComments, explain
from pipeline.configuring.keys import Key, KeyPath, keys_at
from pipeline.params import Params

HEAD = (
    "The parameters of all stages. Change a value here, or with `python -m pipeline configure key=value`, or with "
    "`dvc exp run -S key=value`. `configure` replaces the comments that begin with #: and keeps all others."
)
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that some YAML parser reads as another type than text."""


class _Representer(RoundTripRepresenter):
    """Write null as a word."""


_Representer.add_representer(type(None), SafeRepresenter.represent_none)
_WRITER = YAML()
_WRITER.Representer = _Representer
_WRITER.width = 2**31  # no line is folded


def render(tree: Mapping[str, Any], comments: UserComments) -> str:
    """Return the text of params.yaml.

    tree: its content.
    comments: of the user, which are kept.
    """
    lines = [SCHEMA_LINE, *explain(HEAD, 0), *_block(tree, tree, (), Params, comments), *comments.above.get((), [])]
    return "\n".join(lines) + "\n"


def _block(
    tree: Mapping[str, Any], block: Mapping[str, Any], path: KeyPath, hint: Any, comments: UserComments
) -> Iterator[str]:
    """Yield the lines of all keys of a block. hint: type of the block."""
    keys = keys_at(tree, path, hint)
    indent = " " * 2 * len(path)
    for name, value in block.items():
        here, key = (*path, str(name)), keys.get(str(name), Key(None, ""))
        beside = comments.beside.get(here, "")
        if not path:
            yield ""
        yield from (indent + line for line in comments.above.get(here, []))
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:  {beside}".rstrip()
            yield from _explain(key.meaning, value, keys_at(tree, here, key.hint), len(indent) + 2)
            yield from _block(tree, value, here, key.hint, comments)
        else:
            first, *rest = _entry(name, value)
            beside = beside or ("" if path else f"{MARK} {key.meaning}")
            yield f"{indent}{first}  {beside}".rstrip()
            yield from (indent + line for line in rest)


def _explain(meaning: str, block: Mapping[str, Any], keys: Mapping[str, Key], indent: int) -> Iterator[str]:
    """Yield the comments of a block: what it is, and each of its keys that is not a block.

    They are below the name of the block, because DVC loses comments that follow a list when it writes the file.
    """
    yield from explain(meaning, indent)
    for name, value in block.items():
        if not (isinstance(value, Mapping) and value) and str(name) in keys:
            yield from explain(keys[str(name)].meaning, indent, f"- {name}: ")


def _entry(name: Any, value: Any) -> list[str]:
    """Return the lines of one key with a value that is not a block."""
    buffer = io.BytesIO()
    _WRITER.dump({name: _quoted(value)}, buffer)
    return buffer.getvalue().decode().rstrip("\n").split("\n")


def _quoted(value: Any) -> Any:
    """Return a value with every text in double quotes that is not a plain word or path."""
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value.lower() in _NOT_TEXT):
        return DoubleQuotedScalarString(value)
    return value
