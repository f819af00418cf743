"""Values as they are written on the command line of `configure`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML, YAMLError

from pipeline.configuring.keys import ConfigureError
from pipeline.meanings import UNIONS

_PATHS = ("root", "path")
"""Last parts of the keys whose value is the path of a file or folder outside the checkout."""


def parse_value(hint: Any, text: str, key: str) -> Any:
    """Return the value that a text means for a key, as plain data.

    hint: type of the key. A text is taken literally, a list may be written with commas alone, `null` is no value where
        the key may have none. All others are YAML.
    key: dotted key. A path becomes absolute, and a leading ~ is replaced by the home folder.
    Raises ConfigureError for a text that is not UTF-8 or not YAML, or whose home folder is not known.
    """
    kinds = typing.get_args(hint) if typing.get_origin(hint) in UNIONS else (hint,)
    if text == "null" and type(None) in kinds:
        return None
    if any(kind in (str, Path) for kind in kinds):
        return _resolve(text, key)
    words = [word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
    if text in words or (words and int not in kinds):
        return text
    lists = [kind for kind in kinds if typing.get_origin(kind) is tuple]
    if lists and ("," in text or len(kinds) == len(lists)):
        item = typing.get_args(lists[0])[0]
        return [parse_value(item, part.strip(), key) for part in text.strip("[] ").split(",")]
    return _read_yaml(text, key)


def _resolve(text: str, key: str) -> str:
    """Return a text, which is made absolute if the key is that of a path, and whose ~ is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigureError(f"{key}: {text!r} is not UTF-8; rename the file or folder, or use a link to it") from None
    is_path = bool(text) and key.rpartition(".")[2] in _PATHS
    if not (is_path or text.startswith("~")):
        return text
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigureError(f"{key}: the home folder of {text!r} is not known; write the whole path") from None
    return str(path.absolute() if is_path else path)


def _read_yaml(text: str, key: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigureError(f"{key}: {text!r} is not YAML: {' '.join(str(error).split())}") from None
