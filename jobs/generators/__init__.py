"""Every paper's generator, found by its folder: there is no list to maintain."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from files.errors import UserError
from files.nearest import suggest

PRESETS = ("paper", "small", "demo")
"""Sets of values that every generator's card has: its `Config()`, `Config.small()` and `Config.demo()`."""


def names() -> tuple[str, ...]:
    """List the generators, sorted: one per folder beside this file."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def card(name: str) -> ModuleType:
    """Import a paper's card: its docstring, `PAPER`, `YEAR`, `NEEDS`, `PARAMETERS` and `Config`.

    Imports no torch. Raises UserError for a name that is no generator, with the nearest one.
    """
    if name not in names():
        raise UserError(f"{name!r} is not a generator; {suggest(name, names())}")
    return importlib.import_module(f"jobs.generators.{name}")


def load(name: str) -> ModuleType:
    """Import a paper's recipe module, which has `build(config) -> Recipe`.

    Raises UserError for a name that is no generator, with the nearest one.
    """
    card(name)
    return importlib.import_module(f"jobs.generators.{name}.recipe")


def preset_config(name: str, preset: str) -> Any:
    """Return a `Config` with the values of a preset.

    name: of a generator.
    preset: one of `PRESETS`.
    Raises UserError for a name that is no generator, and for a card without the preset.
    """
    config = card(name).Config
    if preset == "paper":
        return config()
    if not hasattr(config, preset):
        raise UserError(
            f"generators.{name} has no preset {preset}: add a classmethod `{preset}` to `Config` in "
            f"jobs/generators/{name}/__init__.py"
        )
    return getattr(config, preset)()
