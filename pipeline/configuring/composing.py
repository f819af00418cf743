"""Compose params.yaml from the present one and the words of `configure`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from jobs.evaluation.settings import EvaluateConfig, RowsConfig
from jobs.generators import PRESETS, card, names, preset_config
from jobs.report.settings import ReportConfig
from jobs.training.settings import TrainConfig
from pipeline.configuring.keys import ConfigureError, KeyPath, block_at, find_key, keys_at
from pipeline.configuring.presets import GROUPS, lay_over, read_preset
from pipeline.configuring.values import parse_value
from pipeline.meanings import nested_config

_PRESETS = {group: (group, places) for group, places in GROUPS.items()} | {
    ".".join(place): (group, (place,)) for group, places in GROUPS.items() for place in places if place
}
"""Word that takes a preset, a group or one of its blocks -> the group, and the blocks that the preset fills."""

_FILLED: Mapping[KeyPath, type] = {
    ("train",): TrainConfig,
    ("evaluate",): EvaluateConfig,
    ("evaluate", "rows"): RowsConfig,
    ("report",): ReportConfig,
}
"""Blocks whose keys dvc.yaml names -> their dataclass."""


def compose(present: Mapping[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """Return the content of params.yaml after a change. Values that no word concerns are kept.

    present: its content now.
    words: key=value each, in any order: a group and its preset, `generators` and their names, or a dotted key and its
        value. A value is laid over those of presets.
    Raises UserError for a word that is not understood.
    """
    tree, given = copy.deepcopy(dict(present)), _split(words)
    values = {key: text for key, text in given.items() if key not in _PRESETS and key != "generators"}
    for word in _PRESETS:
        if word in given:
            _lay_preset(tree, word, given[word])
    for key, text in values.items():
        if not key.startswith("generators."):
            _set_value(tree, key, text)
    if "dataset.root" in values and "dataset.watch" not in values and tree["dataset"]["root"] is not None:
        tree["dataset"]["watch"] = tree["dataset"]["root"]
    _choose_generators(tree, present, given.get("generators"), given.get("scale"))
    for key, text in values.items():
        if key.startswith("generators."):
            _set_value(tree, key, text)
    _fill_defaults(tree)
    return tree


def generator_values(name: str, preset: str, size: int) -> dict[str, Any]:
    """Return every value of a generator's preset as plain data.

    preset: one of `jobs.generators.PRESETS`.
    size: value of `image_size` for a generator whose network fixes the size of its images.
    """
    values = {key: _plain(value) for key, value in asdict(preset_config(name, preset)).items()}
    return values | ({"image_size": size} if "image_size" in values else {})


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _split(words: Iterable[str]) -> dict[str, str]:
    """Return key -> text. A key of `masks` stands for that of both blocks of masks."""
    given: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigureError(f"{word!r} is not key=value, such as dataset=folder or ingest.size=128")
        group, _, rest = key.partition(".")
        keys = [f"{'.'.join(place)}.{rest}" for place in GROUPS["masks"]] if group == "masks" and rest else [key]
        for each in keys:
            if each in given:
                raise ConfigureError(f"{each} is given twice; give it once")
            given[each] = text
    return given


def _lay_preset(tree: dict[str, Any], word: str, name: str) -> None:
    group, places = _PRESETS[word]
    preset = read_preset(group, name)
    for place in places:
        _put(tree, place, lay_over(block_at(tree, place), group, copy.deepcopy(preset)))


def _set_value(tree: dict[str, Any], key: str, text: str) -> None:
    path = tuple(key.split("."))
    hint = find_key(tree, path).hint
    value = parse_value(hint, text, key)
    if nested_config(hint) and value is not None:
        raise ConfigureError(f"{key} is a block; set one of its keys: {', '.join(keys_at(tree, path, hint))}")
    _put(tree, path, value)


def _put(tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set the value at a path, and make the blocks that lead to it."""
    if not path:
        tree |= value
        return
    name, *rest = path
    if rest:
        tree[name] = dict(block_at(tree, (name,)))
        _put(tree[name], tuple(rest), value)
    else:
        tree[name] = value


def _choose_generators(tree: dict[str, Any], present: Mapping[str, Any], chosen: str | None, scale: str | None) -> None:
    """Write the block `generators`.

    chosen: "all" or names with commas between; None keeps those of the present file.
    scale: preset for all of them. None, or one that generators do not have, keeps the values of the present ones and
        takes "demo" for the others.
    """
    preset = scale if scale in PRESETS else None
    block = block_at(present, ("generators",))
    size, size_before = (block_at(each, ("ingest",)).get("size") for each in (tree, present))
    wanted = list(block) if chosen is None else _names(chosen)
    tree["generators"] = {
        name: generator_values(name, preset or "demo", size) if preset or name not in block else block[name]
        for name in wanted
    }
    for name in wanted:
        values = block_at(tree, ("generators", name))
        if "image_size" in values and values["image_size"] == size_before:
            tree["generators"][name] = {**values, "image_size": size}


def _fill_defaults(tree: dict[str, Any]) -> None:
    """Write the defaults that the file lacks: DVC refuses a file without a key that dvc.yaml names."""
    for path, config in _FILLED.items():
        given = block_at(tree, path)
        defaults = {field.name: _plain(field.default) for field in fields(config) if field.default is not MISSING}
        _put(tree, path, {**given, **{name: value for name, value in defaults.items() if name not in given}})


def _names(chosen: str) -> list[str]:
    if chosen == "all":
        return list(names())
    wanted = list(dict.fromkeys(name.strip() for name in chosen.split(",")))
    for name in wanted:
        card(name)
    return wanted
