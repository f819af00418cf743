"""Readers of public data sets, one file each. A file is found by its presence here. `source.py` is the contract."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from datasets.sources.source import Card, Source, SourceConfig, SourceError, SourceImage, source_key
from files.nearest import suggest

__all__ = ["SOURCES", "Card", "Source", "SourceConfig", "SourceImage", "named", "open_source", "source_config",
           "source_key"]  # fmt: skip

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

SOURCES: dict[str, type[Source]] = {
    source.card.name: source for source in sorted(Source.__subclasses__(), key=lambda source: source.card.name)
}
"""Name -> data set, sorted by name."""


def named(name: str) -> type[Source]:
    """Return the data set of this name. Raises SourceError, with the nearest name, if there is none."""
    if name not in SOURCES:
        raise SourceError(f"{name!r} is not a data set; {suggest(name, SOURCES)}")
    return SOURCES[name]


def source_config(name: str, **values: Any) -> SourceConfig:
    """Return the config of a data set.

    values: fields of its `Config`.
    Raises SourceError for an unknown data set, ValueError for a bad value, TypeError for an unknown field.
    """
    return named(name).Config(name=name, **values)


def open_source(config: SourceConfig) -> Source:
    """Return the data set that `config.name` names.

    config: of the data set's own type, or a plain SourceConfig, whose missing options take their defaults.
    Raises SourceError if there is no such data set, TypeError if the config is that of another data set.
    """
    source = named(config.name)
    return source(source.Config(**vars(config)) if type(config) is SourceConfig else config)
