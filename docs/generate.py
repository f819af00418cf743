"""Write every generated file; `python -m docs.generate` after a change of a card or of a dataclass behind params.yaml.

docs/generators.md comes from the cards, docs/parameters.md and conf/params.schema.json from the dataclasses, and so do
the comments of params.yaml. The tables of docs/results.md come from docs/results/*.json. tests/test_docs.py fails when
one is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from datasets.sources import SOURCES, SourceConfig
from docs import results_tables, schema
from files.checkout import ROOT
from jobs.generators import card, names
from pipeline.configuring.comments import read_user_comments
from pipeline.configuring.rendering import render
from pipeline.meanings import (
    COMMON,
    UNIONS,
    comments,
    common_meaning,
    docstring_entries,
    field_descriptions,
    nested_config,
    summary,
)
from pipeline.params import Params, read_tree

GENERATORS_INTRO = """\
# Generators

This page is generated from the cards in `jobs/generators/*/__init__.py` by `python -m docs.generate`.

A card states the paper, what was built, every known deviation from the paper and from its authors' code, and what is
inferred because no code or text was available. "Unverified" marks a statement that was not compared with the text of
the paper. The defaults below are the paper's scale. The values of the scales `demo` and `small` are in `Config.demo()`
and `Config.small()` of each card.

```sh
python -m pipeline generators          # the table below, on the terminal
python -m pipeline generators --json
```

| Need | What provides it |
|---|---|
| `edge` | the stage `edges`, see [Data](data.md#edges) |
| `semantics` | the stage `semantics`, see [Data](data.md#semantic-labels) |
| `vgg16`, `vgg19`, `resnet50` | `features` of the generator: `imagenet` (torchvision's download), a file, or `random` |
| `teacher` | `teacher` of the generator: a downloaded network, a file, or `random` |

## Keys that mean the same in every generator

A key that a generator's own table explains differs from this table as stated there.
"""

PARAMETERS_INTRO = """\
# Parameters

This page is generated from the dataclasses behind `params.yaml` by `python -m docs.generate`.

`params.yaml` is your job: it holds every number of a run. Every stage checks the whole file before it starts. An
unknown key or a wrong type stops the stage with a message that names the nearest valid key.

```sh
python -m pipeline configure                       # lists the presets
python -m pipeline configure dataset=folder "dataset.root=/data/Photos (2019)" ingest.size=128
```

| Command | What it changes in `params.yaml` |
|---|---|
| an editor | what you edit; the file explains every key, and `conf/params.schema.json` lets editors complete keys |
| `python -m pipeline configure key=value ...` | the named values and presets, after the result has been checked |
| `dvc exp run -S key=value` | the named values |
| `dvc repro`, `dvc exp run` | nothing |

- The words `dataset`, `scale`, `crops`, `cluster` and `masks` choose a preset, a file of `conf/`. A preset sets only
  the values that it names. `suite.masks=` and `train.samples.masks=` choose for one of the two. `masks.files.root=`
  sets both.
- `generators=` takes names with commas between, or `all`. Generators that are new in the file get the values of their
  preset `demo`, unless the same command says `scale=`. The others keep their values, unless it says `scale=`.
- A text is taken literally: quote it for your shell alone. `null` stands for no value. Lists have commas.
- `configure` writes paths in full and replaces a leading `~`. In the file itself `~` is refused, because DVC does not
  replace it. A text with `${` is refused, because DVC would replace it.
- `dataset.root=` sets `dataset.watch` to the same path. DVC reads every byte of it once, and later only files whose
  size or time changed. It copies nothing. For a large data set, watch a small file instead, which you change with the
  data: `dataset.watch=/data/version.txt`.
- `dvc exp run -S` has [a grammar of its own](https://hydra.cc/docs/advanced/override_grammar/basic/) for blanks,
  brackets and commas, and refuses a key that the file does not have. `configure` adds such keys, such as
  `edges.fine.sigma=1.0`. A comment of yours directly behind a list is lost when DVC writes the file.

The keys of a generator are in [Generators](generators.md).

The defaults below are those of the code. The presets set other values; `params.yaml` shows the values in force.
"""


def generated() -> dict[str, str]:
    """Return the text of every generated file, by its path in the checkout."""
    return {
        "docs/generators.md": generators_page(),
        "docs/parameters.md": parameters_page(),
        "docs/results.md": results_tables.page(),
        str(schema.SCHEMA_PATH): schema.render(),
        "params.yaml": render(read_tree(ROOT / "params.yaml"), read_user_comments((ROOT / "params.yaml").read_text())),
    }


def missing() -> list[str]:
    """Return the dotted names of all keys without a meaning, those of generators included."""
    found = [f"{paths[0]}.{name}".lstrip(".") for kind, paths in sections() for name in _unexplained(kind)]
    for generator in names():
        found += [f"generators.{generator}.{name}" for name in _unexplained(card(generator).Config)]
    return found


def generators_page() -> str:
    """Return docs/generators.md."""
    common = _table(("Key", "Meaning"), [(f"`{key}`", _cell(meaning)) for key, meaning in COMMON.items()])
    rows = [
        (f"[{name}](#{name})", str(card(name).YEAR), _needs(name), _counts(name), _cell(card(name).PAPER))
        for name in names()
    ]
    overview = _table(("Generator", "Year", "Needs", "Parameters at the paper's scale", "Paper"), rows)
    return _page([GENERATORS_INTRO, common, "## Overview", overview, *(_generator(name) for name in names())])


def parameters_page() -> str:
    """Return docs/parameters.md."""
    parts = [PARAMETERS_INTRO]
    for kind, paths in sections():
        heading = ", ".join(f"`{path}`" for path in paths if path) or "Top level"
        parts += [f"## {heading}", _text(summary(kind)), _fields(kind)]
    return _page(parts)


def sections() -> list[tuple[type, list[str]]]:
    """Return every dataclass behind params.yaml with the paths at which it is used, generators left out."""
    found: dict[type, list[str]] = {}
    _visit(Params, "", found)
    for name, source in SOURCES.items():  # the config of a data set depends on `dataset.name`
        if source.Config is not SourceConfig:
            found.setdefault(source.Config, []).append(f"dataset with name: {name}")
    return list(found.items())


def _unexplained(kind: type) -> list[str]:
    explained = field_descriptions(kind)
    hints = typing.get_type_hints(kind)
    return [
        name
        for name in (field.name for field in dataclasses.fields(kind))
        if name not in explained and not nested_config(hints[name])
    ]


def _visit(kind: type, path: str, found: dict[type, list[str]]) -> None:
    found.setdefault(kind, []).append(path)
    for name, hint in typing.get_type_hints(kind).items():
        if inner := nested_config(hint):
            is_named = typing.get_origin(hint) is Mapping
            _visit(inner, ".".join(filter(None, (path, name, "<name>" if is_named else ""))), found)


def _generator(name: str) -> str:
    text = inspect.cleandoc(card(name).__doc__)
    title, _, body = text.partition("\n")
    kind = card(name).Config
    parts = [f"## {name}", _text(title), _text(body), f"### Keys of {name}", _text(summary(kind)), _fields(kind)]
    return "\n\n".join(part.strip("\n") for part in parts)


def _fields(kind: type) -> str:
    """Return a table of the fields; comments, where there are any, fill a column of their own."""
    hints, explained, notes = typing.get_type_hints(kind), docstring_entries(kind), comments(kind)
    rows = []
    for field in dataclasses.fields(kind):
        inner = nested_config(hints[field.name])
        meaning = explained.get(field.name) or (summary(inner) if inner else "")
        meaning = meaning or common_meaning(kind, field)
        row = (f"`{field.name}`", _type(hints[field.name]), _default(field), _cell(meaning))
        rows.append((*row, _cell(notes.get(field.name, ""))) if notes else row)
    header = ("Key", "Type", "Default", "Meaning")
    return _table((*header, "Note or source of the default") if notes else header, rows)


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "null"
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in UNIONS:
        return " or ".join(_type(argument) for argument in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    if origin is Mapping:
        return "mapping by name"
    if dataclasses.is_dataclass(hint):
        return "mapping"
    return {str: "text", int: "whole number", float: "number", bool: "true, false", Path: "path"}[hint]


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{json.dumps(field.default)}`"
    return "required" if field.default_factory is dataclasses.MISSING else "its own defaults"


def _needs(name: str) -> str:
    return ", ".join(f"`{need}`" for need in card(name).NEEDS) or "-"


def _counts(name: str) -> str:
    return ", ".join(f"`{network}` {count:,}" for network, count in card(name).PARAMETERS.items())


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _page(parts: list[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Escape `*` and `<` for Markdown, except between backticks."""
    pieces = re.split(r"(`[^`]*`)", text)
    escaped = (piece if piece.startswith("`") else re.sub(r"([*<])", r"\\\1", piece) for piece in pieces)
    return "".join(escaped)


def _write() -> Iterator[str]:
    for name, text in generated().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        yield f"{name}: {len(text.splitlines())} lines"
    if without := missing():
        yield f"{len(without)} keys have no meaning: {', '.join(without)}"


if __name__ == "__main__":
    for line in _write():
        print(line)
