"""Compose params.yaml from its present values, presets and single values."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from files.durable import write_durably
from pipeline.configuring.comments import read_user_comments
from pipeline.configuring.composing import compose
from pipeline.configuring.keys import block_at
from pipeline.configuring.presets import GROUPS, describe_preset, preset_names
from pipeline.configuring.rendering import render
from pipeline.params import PARAMS_PATH, check_tree, read_tree
from pipeline.progress import printable
from pipeline.tables import wrap_last
from pipeline.verbosity import say


def run(words: Sequence[str], path: Path = PARAMS_PATH) -> str:
    """Change params.yaml after the result has been checked, and return lines that say what changed.

    words: key=value each; see `compose`.
    path: params.yaml.
    Raises UserError, and leaves the file unchanged, if a word is not understood or a value is wrong.
    """
    before = read_tree(path)
    text = path.read_text(encoding="utf-8")
    after = compose(before, words)
    check_tree(after, path.name)
    rendered = render(after, read_user_comments(text))
    if rendered != text:
        write_durably(path, rendered.encode())
    return "\n".join([*_changes(before, after, path.name), *_notes(before, after, words), "next: dvc exp run"])


def list_presets() -> str:
    """Return a line per word of a group."""
    rows = [(f"{group}={name}", describe_preset(group, name)) for group in GROUPS for name in preset_names(group)]
    return wrap_last([*rows, ("generators=all", "or names with commas between; see `python -m pipeline generators`")])


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield a line per value that changed. A generator that is added or removed is one value."""
    whole = {f"generators.{name}" for name in _generators(before) ^ _generators(after)}
    old, new = dict(_flatten(before, "", whole)), dict(_flatten(after, "", whole))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    yield f"{where}: {len(changed) or 'no'} value{'s' * (len(changed) != 1)} changed"
    if changed:
        yield wrap_last([(f"  {key}", f"{old.get(key, '-')} -> {new.get(key, '-')}") for key in changed])


def _notes(before: Mapping[str, Any], after: Mapping[str, Any], words: Sequence[str]) -> Iterator[str]:
    added = sorted(_generators(after) - _generators(before))
    if added and not any(word in words for word in ("scale=small", "scale=paper")):
        yield f"note: {', '.join(added)} at demo scale; add the word scale=small or scale=paper for another"
    for key, value in _flatten(after, "", set()):
        if key.endswith(".root") and value != "null" and not Path(value).exists():
            yield f"note: {key} is {value}, which is not on this machine"


def _generators(tree: Mapping[str, Any]) -> set[str]:
    return set(block_at(tree, ("generators",)))


def _flatten(tree: Mapping[str, Any], path: str, whole: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield dotted key and value, as texts. whole: keys of blocks that are one value."""
    for name, value in tree.items():
        key = f"{path}.{name}".lstrip(".")
        if key in whole:
            yield key, f"{len(value or {})} values"
        elif isinstance(value, Mapping):
            yield from _flatten(value, key, whole)
        else:
            yield key, printable(value if isinstance(value, str) else json.dumps(value, default=str))


VERB = {
    "help": "write params.yaml: choose presets and set single values; without words, list the presets",
    "example": "configure dataset=folder dataset.root='/data/my photos' generators=edge_connect,partial_conv",
    "arguments": {
        "words": {
            "nargs": "*",
            "metavar": "key=value",
            "completes": "words",
            "help": "dataset, scale, cluster, masks or generators and a preset; or a key of params.yaml and its value",
        }
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print what changed, or the presets."""
    if arguments.words:
        say(run(arguments.words))
    else:
        print(list_presets())
    return 0
