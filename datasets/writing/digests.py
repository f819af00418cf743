"""Digests of plain data, from which the identity of a shard is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value, in hex.

    value: None, a bool, number, text, bytes or class, or a mapping, sequence or dataclass of such values. The order of
        a mapping does not count.
    Raises TypeError for any other value, such as a function or an array.
    """
    return hashlib.sha256(json.dumps(_as_json(value), sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, type):
        return {"class": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, Mapping):
        return {"mapping": [[_as_json(key), _as_json(value[key])] for key in sorted(value)]}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        content = {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return _as_json(type(value)) | content
    raise TypeError(f"{type(value).__name__} has no digest: it must be plain data or a dataclass of plain data")
