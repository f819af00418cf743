"""The trainings in the storage: the state of each, what of it differs from the present job, and the next command."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.runs.folder import RunFolder, list_run_folders
from jobs.runs.state import TrainingState, is_training, read_state
from pipeline.code import stage_code
from pipeline.layout import column_folder


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training and what can be done with it.

    differences: what is not as params.yaml, shards and code are now, of a training that no process runs. One with
        differences is another experiment, which a new training does not continue.
    next: the next command; None if there is nothing to do but wait.
    """

    state: TrainingState
    differences: tuple[str, ...]
    next: str | None


def list_trainings(storage: Path, tree: Mapping[str, Any]) -> list[Training]:
    """Return the trainings of a storage, sorted by generator.

    tree: the content of params.yaml.
    """
    trainings = []
    for folder in filter(is_training, list_run_folders(storage)):
        try:
            trainings.append(_describe(folder, tree))
        except FileNotFoundError:  # it has just been finished and removed
            continue
    return trainings


def _describe(folder: RunFolder, tree: Mapping[str, Any]) -> Training:
    state = read_state(folder)
    if state.holder:
        command = None if state.state == "stopping" else f"python -m pipeline stop {state.generator}"
        return Training(state=state, differences=(), next=command)
    differences = tuple(_find_differences(folder, state.generator, tree))
    command = _restore_command(folder) if differences else f"dvc repro train@{state.generator}"
    return Training(state=state, differences=differences, next=command)


def _restore_command(folder: RunFolder) -> str | None:
    """Return the command that puts the parameters and code of a training in place; None if it was not tracked."""
    description = _read_json(folder.run)
    return f"python -m pipeline restore {description['training']}" if "training" in description else None


def _find_differences(folder: RunFolder, generator: str, tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an experiment was started with and is not so now: keys of params.yaml, columns, files of code.

    A key that params.yaml leaves out, so that its default counts, is not compared.
    """
    recorded = _read_json(folder.experiment)
    if not recorded:  # it was ended before it began
        return
    listed = tree.get("generators") or {}
    if generator not in listed:
        yield f"params.yaml does not list {generator}"
        return
    now = {"seed": tree.get("seed"), "train": tree.get("train"), f"generators.{generator}": listed[generator]}
    then = {"seed": recorded["seed"], "train": recorded["train"], f"generators.{generator}": recorded["config"]}
    present, past = _flatten(now), _flatten(then)
    yield from (key for key in past if key in present and present[key] != past[key])
    for name, digest in recorded["data"].items():
        stored = (tree.get("train") or {}).get("edges", name) if name == "edge" else name
        column = column_folder(stored, "train")
        if _read_json(column / "manifest.json").get("digest") != digest:
            yield str(column)
    code = _code_of(generator)
    yield from (name for name in sorted({*code, *recorded["code"]}) if code.get(name) != recorded["code"].get(name))


_code_of = functools.cache(functools.partial(stage_code, "train"))


def _read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file; {} if it is missing or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted path."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for name, child in tree.items():
        leaves |= _flatten(child, f"{prefix}.{name}" if prefix else str(name))
    return leaves
