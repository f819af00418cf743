"""The keys that params.yaml may have, with their types and meanings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets.sources import named
from files.errors import UserError
from files.nearest import suggest
from jobs.generators import card, names
from pipeline.meanings import field_descriptions, nested_config, summary
from pipeline.params import Params

KeyPath = tuple[str, ...]


class ConfigureError(UserError):
    """A word of the command line cannot be used; params.yaml stays unchanged."""


@dataclass(frozen=True)
class Key:
    """One key of params.yaml.

    hint: type of its value.
    meaning: of its value, in a sentence or two.
    """

    hint: Any
    meaning: str


WORDS = ("scale", "crops", "masks")
"""Words of `configure` that are no keys of params.yaml."""

_FREE_NAMES = (("edges",), ("cluster", "generator_workers"))
"""Blocks that may have keys of any name."""

PRESET = Key(str, "demo, small or paper, the values that the keys beside it replace")


def keys_at(tree: Mapping[str, Any], path: KeyPath = (), hint: Any = Params) -> dict[str, Key]:
    """Return the keys that a block of params.yaml may have; empty for a single value.

    tree: the content of params.yaml. Its data set and its generators decide about the keys of their blocks.
    path: keys that lead to the block, outermost first.
    hint: type of the block.
    """
    block = block_at(tree, path)
    if path == ("generators",):
        cards = {name: card(name) for name in block if name in names()}
        return {name: Key(card.Config, card.PAPER) for name, card in cards.items()}
    if path == ("dataset",):
        hint = named(str(block.get("name"))).Config
    config = nested_config(hint)
    if config is None:
        return {}
    if typing.get_origin(hint) is Mapping:  # a config under each name
        return {str(name): Key(config, summary(config)) for name in block}
    meanings, hints = field_descriptions(config), typing.get_type_hints(config)
    keys = {}
    for field in dataclasses.fields(config):
        nested = nested_config(hints[field.name])
        keys[field.name] = Key(hints[field.name], meanings.get(field.name) or (summary(nested) if nested else ""))
    return keys | ({"preset": PRESET} if path[:1] == ("generators",) else {})


def find_key(tree: Mapping[str, Any], path: KeyPath) -> Key:
    """Return the key at a path. A new key of `edges` or `cluster.generator_workers` may have any name.

    Raises ConfigureError, with the nearest key, if there is none.
    """
    key = Key(Params, "")
    for depth, name in enumerate(path):
        keys = keys_at(tree, path[:depth], key.hint)
        if path[:depth] in _FREE_NAMES:
            key = keys.get(name) or Key(typing.get_args(key.hint)[1], "")
        elif name in keys:
            key = keys[name]
        else:
            raise ConfigureError(_unknown(path[:depth], name, keys))
    return key


def block_at(tree: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return the block at a path; empty if there is none."""
    found: Any = tree
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def _unknown(path: KeyPath, name: str, keys: Mapping[str, Key]) -> str:
    place = ".".join((*path, name))
    if path == ("generators",):
        if name in names():
            return f"{place} is not chosen; choose it with: generators={','.join([*keys, name])}"
        return f"{place} is not a key; {suggest(name, names())}"
    if not keys:
        return f"{place} is not a key, because {'.'.join(path)} is a single value"
    return f"{place} is not a key; {suggest(name, [*keys, *WORDS] if not path else keys)}"
