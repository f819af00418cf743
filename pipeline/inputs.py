"""The inputs of a stage, and the proof that it ends with those that it began with.

DVC reads the inputs of a stage after the stage has ended, and records them beside its outputs. A stage whose inputs
were edited meanwhile must therefore fail before it writes outputs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from files.durable import file_digest
from files.errors import UserError
from pipeline.code import find_stage, read_declaration, stage_code

# Imports no code that a stage runs: what is imported later is the code that was read here.
_PARAMS = Path("params.yaml")
PARAMS_PREFIX = f"{_PARAMS}: "
"""Begin of the name of each input that is a value of params.yaml."""
_SUMMARIES = ("manifest.json", "receipt.json")
_MAX_DIFFERENCES = 5  # in a message


class InputsChangedError(UserError):
    """Inputs of a stage were changed while it ran; the message names them."""


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """The inputs of one stage at one moment, as far as dvc.yaml declares them.

    stage, key: see `pipeline.code.read_declaration`.
    code: path of each file of code, and of the lock of packages -> digest.
    values: PARAMS_PREFIX + dotted key -> value, and path of each data file -> digest. A manifest or receipt stands for
        its folder: it has the digests of the other files there, which are compared when they are read.
    """

    stage: str
    key: str
    code: Mapping[str, str]
    values: Mapping[str, Any]

    @classmethod
    def read(cls, stage: str, key: str = "") -> StageInputs:
        """Read the inputs as they are now. A file that is missing is none of them."""
        declared = read_declaration(stage, key)
        data = {path.as_posix(): file_digest(path) for name in declared.data for path in _list_files(Path(name))}
        values = {**read_parameters(declared.params), **data}
        return cls(stage=stage, key=key, code=stage_code(stage, key), values=values)

    def check_unchanged(self, remedy: str = "run the same command again") -> None:
        """Raise InputsChangedError if an input is not what it was.

        remedy: last part of the message.
        """
        now = StageInputs.read(self.stage, self.key)
        changes = [*_describe_changes(self.values, now.values), *_describe_changes(self.code, now.code)]
        if len(changes) > _MAX_DIFFERENCES:
            changes[_MAX_DIFFERENCES:] = [f"and {len(changes) - _MAX_DIFFERENCES} more"]
        if changes:
            name = f"{self.stage} {self.key}".strip()
            raise InputsChangedError(
                f"inputs of {name} were changed while it ran, so it writes no outputs: {'; '.join(changes)}; {remedy}"
            )


def read_inputs_of(words: list[str]) -> StageInputs | None:
    """Read the inputs of the stage that a command line runs; None if it runs no stage.

    words: the command line after `python -m pipeline`.
    """
    found = find_stage(words)
    if found is None or not re.fullmatch(r"[a-z0-9_]*", found[1]):  # the stage refuses such a generator
        return None
    return StageInputs.read(*found)


def read_values() -> Any:
    """Return the content of params.yaml with nothing checked; None if it cannot be read."""
    try:
        return _parse(_PARAMS.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return None


def _list_files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files below a folder: of a folder with a manifest or a receipt, that file alone."""
    if path.is_file():
        yield path
        return
    summaries = [path / name for name in _SUMMARIES if (path / name).is_file()]
    for child in summaries or (sorted(path.iterdir()) if path.is_dir() else ()):
        yield from _list_files(child)


def read_parameters(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of some keys of params.yaml by the path of each leaf; no value if the file cannot be read."""
    tree = read_values()
    if tree is None:
        return {}
    leaves: dict[str, Any] = {}
    for name in names:
        value = tree
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        leaves |= _flatten(value, f"{PARAMS_PREFIX}{name}")
    return leaves


@functools.lru_cache(maxsize=2)
def _parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _flatten(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    leaves: dict[str, Any] = {}
    for key, child in value.items():
        leaves |= _flatten(child, f"{name}.{key}")
    return leaves


def _describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name each input that differs; of a parameter, also what it was and is."""
    texts = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            is_parameter = name.startswith(PARAMS_PREFIX)
            texts.append(f"{name} was {_shorten(old)}, is {_shorten(new)}" if is_parameter else f"{name} was changed")
    return texts


def _shorten(value: Any, limit: int = 40) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
