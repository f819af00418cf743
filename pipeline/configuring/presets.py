"""Presets: files in conf/ with values for params.yaml."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML

from files.checkout import ROOT
from files.nearest import suggest
from pipeline.configuring.keys import ConfigureError
from pipeline.texts import UNSET

GROUPS = {
    "dataset": (("dataset",),),
    "scale": ((),),
    "crops": ((),),
    "cluster": (("cluster",),),
    "masks": (("train", "samples", "masks"), ("suite", "masks")),
}
"""Group of presets, a folder of conf/ -> paths of the blocks that take their values."""
_NAME = {"dataset": "name", "masks": "kind"}
"""Group -> the key whose value decides which other keys a block may have."""


def preset_names(group: str) -> list[str]:
    """Return the presets of a group."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def describe_preset(group: str, name: str) -> str:
    """Return the comment at the top of a preset."""
    lines = (ROOT / "conf" / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def read_preset(group: str, name: str) -> dict[str, Any]:
    """Return the values of a preset. Raises ConfigureError, with the nearest preset, if there is none."""
    if name not in preset_names(group):
        raise ConfigureError(f"{group}={name}: {name!r} is not a preset; {suggest(name, preset_names(group))}")
    text = (ROOT / "conf" / group / f"{name}.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)


def lay_over(block: dict[str, Any], group: str, preset: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the values of a preset, and the values of its own that the preset does not name.

    The values of another data set, or of another kind of masks, are not kept.
    """
    name = _NAME.get(group)
    if name and block.get(name) != preset[name]:
        return preset
    return _merge(block, preset)


def _merge(block: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    merged = dict(block)
    for key, value in preset.items():
        if isinstance(value, dict):
            present = block.get(key)
            merged[key] = _merge(present if isinstance(present, dict) else {}, value)
        elif value != UNSET or key not in block:
            merged[key] = value
    return merged
