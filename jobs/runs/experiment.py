"""Experiments: what makes two trainings the same, and which of them are unfinished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.durable import write_durably
from files.errors import UserError
from jobs.runs.claim import find_holder
from jobs.runs.folder import RunFolder, list_checkpoints, list_run_folders

_MAX_DIFFERENCES = 8  # in a message
_MAX_VALUE_LENGTH = 24


class ExperimentError(UserError):
    """Another experiment of this generator is unfinished. The message names the differences and what to do."""


@dataclass(frozen=True)
class Experiment:
    """A training, identified by everything that its result depends on.

    generator: its name.
    inputs: parameters and digests of data, code and packages, as JSON. The number of processes and the machine are not
        among them: a training may be continued with others.
    root: folder of all live trainings, on a file system that every node sees.
    """

    generator: str
    inputs: Mapping[str, Any]
    root: Path

    @property
    def identity(self) -> str:
        """SHA-256 of the inputs, in hex."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """First 16 digits of the identity, which name the run folder."""
        return self.identity[:16]

    @property
    def folder(self) -> RunFolder:
        """The run folder, which exists until the training is finished."""
        return RunFolder(self.root / self.generator / self.name)

    def check(self, *, start_anew: bool) -> None:
        """Raise ExperimentError if a new training would leave another experiment of the generator unfinished.

        start_anew: True allows it.

        An experiment that already has a run folder may always continue.
        """
        if start_anew or self.folder.experiment.is_file():
            return
        for other in find_unfinished(self.root, self.generator):
            raise ExperimentError(
                f"{other.path} holds an unfinished training of {self.generator} that is another experiment: "
                f"{self._compare(other)}. Set these back to go on with it; remove the folder to give it up; or leave "
                "it and train this one with -S cluster.start_anew=true"
            )

    def describe(self) -> None:
        """Write the inputs to the run folder."""
        write_durably(self.folder.experiment, json.dumps(self.inputs, indent=2, sort_keys=True).encode())

    def _compare(self, other: RunFolder) -> str:
        """Return the differences to another experiment, as text."""
        old, new = _flatten(json.loads(other.experiment.read_text())), _flatten(self.inputs)
        keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        differences = [f"{key} was {_shorten(old.get(key))}, is {_shorten(new.get(key))}" for key in keys]
        if len(keys) > _MAX_DIFFERENCES:
            differences[_MAX_DIFFERENCES:] = [f"and {len(keys) - _MAX_DIFFERENCES} more"]
        return "; ".join(differences)


def find_unfinished(root: Path, generator: str) -> list[RunFolder]:
    """Return the run folders of a generator that have a checkpoint, are not complete, and that no process trains."""
    return [folder for folder in list_run_folders(root, generator) if _is_unfinished(folder)]


def _is_unfinished(folder: RunFolder) -> bool:
    return (
        bool(list_checkpoints(folder.checkpoints))
        and folder.experiment.is_file()
        and not folder.weights.is_file()
        and find_holder(folder) is None
    )


def discard(folder: RunFolder) -> None:
    """Remove the run folder of a finished training.

    It is renamed first: a kill during the removal leaves nothing that looks like a training. Remains of earlier
    removals are removed, too.
    """
    path = folder.path
    path.rename(path.with_name(f".{path.name}.{os.getpid()}.removed"))
    for removed in path.parent.glob(".*.removed"):
        shutil.rmtree(removed, ignore_errors=True)  # another process may be removing it, too


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted path."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for name, child in tree.items():
        leaves |= _flatten(child, f"{prefix}.{name}" if prefix else name)
    return leaves


def _shorten(value: Any) -> str:
    text = json.dumps(value) if value is not None else "absent"
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH // 2]}…"
