"""What a column must be, stated by the code that opens it. The manifest states what the column is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.shards.manifest import Manifest
from datasets.shards.records import ShardError

_LONGEST_VALUE = 64  # characters of a value in a message


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Entries that the manifest of a column must have. An entry that is None is not compared.

    dataset, split, column: as in `Manifest`.
    made_from: digest of the manifest of the images that the column must have been made from.
    digest: digest of the manifest itself.
    parameters: entries that the manifest's `parameters` must have. Further entries there are not compared.
    """

    dataset: str | None = None
    split: str | None = None
    column: str | None = None
    made_from: str | None = None
    digest: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, manifest: Manifest) -> Iterator[str]:
        """Yield a text such as "sigma is 2.0, expected 0.5" for each entry that differs."""
        for name in ("dataset", "split", "column"):
            if (expected := getattr(self, name)) is not None:
                yield from _differences(name, getattr(manifest, name), expected)
        if self.made_from not in (None, manifest.made_from):
            yield f"it was made from images {manifest.made_from or 'without a digest'}, expected {self.made_from}"
        if self.digest not in (None, manifest.digest):
            yield f"its manifest is {manifest.digest}, expected {self.digest}"
        for name, value in self.parameters.items():
            yield from _differences(name, manifest.parameters.get(name), _as_json(value))

    def check(self, manifest: Manifest, folder: Path, remedy: str) -> None:
        """Raise ShardError, in one line, if an entry differs.

        folder: where the manifest is.
        remedy: command that writes the column again.
        """
        refuse(folder, self.differences(manifest), remedy)


def refuse(folder: Path, differences: Iterable[str], remedy: str) -> None:
    """Raise ShardError, in one line, if there are differences."""
    if found := list(differences):
        raise ShardError(f"{folder} {mismatch(found, remedy)}")


def mismatch(differences: Iterable[str], remedy: str) -> str:
    """Return the differences as a text that continues "<folder> ..."."""
    return f"is not the expected column: {'; '.join(differences)}; run: {remedy}"


def _differences(name: str, found: Any, expected: Any) -> Iterator[str]:
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key, value in expected.items():
            yield from _differences(f"{name}.{key}", found.get(key), value)
    elif found != expected:
        yield f"{name} is {_shown(found)}, expected {_shown(expected)}"


def _as_json(value: Any) -> Any:
    """Return a value as a manifest gives it back: tuples as lists."""
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    text = "not stated" if value is None else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


ANYTHING = Expectation()
