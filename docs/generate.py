"""Write docs/generators.md from the cards and docs/parameters.md from the dataclasses behind params.yaml.

`python -m docs.generate` writes both pages. tests/test_docs.py fails when either is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from jobs.generators import card, names
from pipeline.params import Params

DOCS = Path(__file__).resolve().parent

GENERATORS_INTRO = """\
# Generators

This page is generated from the cards in `jobs/generators/*/__init__.py` by `python -m docs.generate`.

A card states the paper, what was built, every known deviation from the paper and from its authors' code, and what is
inferred because no code or text was available. "Unverified" marks a statement that was not compared with the text of
the paper. The defaults below are the paper's scale. Demo-sized values are in `conf/recipes/demo/`.

```sh
python -m pipeline generators          # the table below, on the terminal
python -m pipeline generators --json
```

| Need | What provides it |
|---|---|
| `edge` | the stage `edges`, see [Data](data.md#edges) |
| `semantics` | the stage `semantics`, see [Data](data.md#semantic-labels) |
| `vgg16`, `vgg19` | `features` of the generator: `imagenet` (torchvision's download), a file, or `random` |
| `teacher` | `teacher` of the generator: a downloaded network, a file, or `random` |

## Keys that mean the same in every generator

A key that a generator's own table explains differs from this table as stated there.
"""

PARAMETERS_INTRO = """\
# Parameters

This page is generated from the dataclasses behind `params.yaml` by `python -m docs.generate`.

`params.yaml` holds every number of a run. Every stage checks the whole file before it starts. An unknown key or a
wrong type stops the stage with a message that names the nearest valid key. The presets in `conf/` compose the file:

```sh
dvc exp run -S dataset=folder -S dataset.root=/data/pictures -S ingest.size=128
```

`-S group=option` chooses a preset (`dataset`, `scale`, `cluster`, `generators`). `-S key=value` changes one value.
`dvc exp run` composes the whole file from the presets: earlier `-S` and edits by hand are lost, unless you add
`--no-hydra`. `dvc repro` does not change the file. See
[Getting started](getting_started.md#three-ways-to-set-parameters).
`-S +edges.fine.sigma=1.0` adds a key that the presets do not have. The keys of a generator are in
[Generators](generators.md).

The defaults below are those of the code. The presets set other values; `params.yaml` shows the values in force.
"""

COMMON = {
    "batch_size": "images per step, over all workers",
    "learning_rate": "learning rate of the optimizers of the generators",
    "d_learning_rate": "learning rate of the optimizers of the discriminators",
    "beta1": "Adam's decay of the first moment",
    "beta2": "Adam's decay of the second moment",
    "steps": "global steps of the training",
    "*_steps": "global steps of the phase of that name; 0 leaves the phase out",
    "halving_steps": "steps, counted from the start of the training, after which the learning rates are halved",
    "*_weight": "factor in the loss, of the term or the region that the name states",
    "image_size": "side of training images in pixels; the network fixes it",
    "width": "width of the generators: channels of their first layer",
    "d_width": "width of the discriminators: channels of their first layer",
    "features": 'weights of the VGG network: "imagenet", "random" or the path of a file',
    "features_seed": 'seed of the "random" weights',
    "mask_pool": 'how the mask is reduced to the cells of a layer: "nearest" takes one pixel, "max" any hole pixel',
    "num_classes": "number of semantic labels; must match the labels of the data",
}


def pages() -> dict[str, str]:
    """Return the text of every generated page, by file name."""
    return {"generators.md": generators_page(), "parameters.md": parameters_page()}


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
        parts += [f"## {heading}", _text(_summary(kind)), _fields(kind)]
    return _page(parts)


def sections() -> list[tuple[type, list[str]]]:
    """Return every dataclass behind params.yaml with the paths at which it is used, generators left out."""
    found: dict[type, list[str]] = {}
    _visit(Params, "", found)
    return list(found.items())


def meanings(kind: type) -> dict[str, str]:
    """Return the meaning of each field that a docstring of the class or of its bases explains.

    A docstring explains fields by `name: meaning`, one per line, or `name, other: meaning`; a name may hold `*`.
    """
    result: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base) and "__doc__" in vars(base):
            result |= _explained(inspect.cleandoc(base.__doc__ or ""), _names(kind))
    return result


def comments(kind: type) -> dict[str, str]:
    """Return the comment behind each field of the class: in generators, where the default comes from."""
    result: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            matches = re.finditer(r"^    (\w+): [^#\n]*?# *(.+)$", inspect.getsource(base), re.MULTILINE)
            result |= {match[1]: match[2].strip() for match in matches}
    return result


def _explained(text: str, known: tuple[str, ...]) -> dict[str, str]:
    one = r"[a-z_*][a-z0-9_*]*"
    pattern = re.compile(rf"(?:^|(?<=[.;] ))({one}(?:, {one})*)(?: \((.*?)\))?:\s+(?=\S)", re.MULTILINE)
    matches = [match for match in pattern.finditer(text) if _fields_of(match[1], known)]
    result: dict[str, str] = {}
    ends = [*(match.start() for match in matches[1:]), len(text)]
    for match, end in zip(matches, ends, strict=False):
        body = text[match.end() : end]
        body = re.split(r"\n\n|\n(?=Raises |Returns |Sources: )", body)[0]
        body = " ".join(body.split()).rstrip(";. ")
        body = f"{match[2]}: {body}" if match[2] else body
        result |= dict.fromkeys(_fields_of(match[1], known), body)
    return result


def _fields_of(listed: str, known: tuple[str, ...]) -> list[str]:
    """Return the fields that a list such as `a, b` or `*_steps` names; empty if one of them is none."""
    result: list[str] = []
    for name in listed.split(", "):
        pattern = re.compile(re.escape(name).replace(r"\*", ".*"))
        fields = [field for field in known if pattern.fullmatch(field)]
        if not fields:
            return []
        result += fields
    return result


def _unexplained(kind: type) -> list[str]:
    explained = meanings(kind)
    if _is_generator(kind):
        explained |= comments(kind) | {name: _common(name) for name in _names(kind) if _common(name)}
    hints = typing.get_type_hints(kind)
    return [name for name in _names(kind) if name not in explained and not _nested(hints[name])]


def _is_generator(kind: type) -> bool:
    return kind.__module__.startswith("jobs.generators.")


def _common(name: str) -> str | None:
    if name in COMMON:
        return COMMON[name]
    return next((text for key, text in COMMON.items() if _fields_of(key, (name,))), None)


def _visit(kind: type, path: str, found: dict[type, list[str]]) -> None:
    found.setdefault(kind, []).append(path)
    for name, hint in typing.get_type_hints(kind).items():
        if inner := _nested(hint):
            is_named = typing.get_origin(hint) is Mapping
            _visit(inner, ".".join(filter(None, (path, name, "<name>" if is_named else ""))), found)


def _nested(hint: Any) -> type | None:
    """Return the dataclass that a field holds: itself, or null, or one per name."""
    if dataclasses.is_dataclass(hint):
        return hint
    arguments = (hint, *typing.get_args(hint)) if typing.get_origin(hint) in (Mapping, *_UNIONS) else ()
    return next((argument for argument in arguments if dataclasses.is_dataclass(argument)), None)


_UNIONS = (typing.Union, types.UnionType)


def _generator(name: str) -> str:
    text = inspect.cleandoc(card(name).__doc__)
    title, _, body = text.partition("\n")
    kind = card(name).Config
    parts = [f"## {name}", _text(title), _text(body), f"### Keys of {name}", _text(_summary(kind)), _fields(kind)]
    return "\n\n".join(part.strip("\n") for part in parts)


def _fields(kind: type) -> str:
    """Return a table of the fields; comments, where there are any, fill a column of their own."""
    hints, explained, notes = typing.get_type_hints(kind), meanings(kind), comments(kind)
    rows = []
    for field in dataclasses.fields(kind):
        inner = _nested(hints[field.name])
        meaning = explained.get(field.name) or (_summary(inner) if inner else "")
        if not meaning and _is_generator(kind):
            meaning = _common(field.name) or ""
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
    if origin in _UNIONS:
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


def _summary(kind: type) -> str:
    """Return the docstring up to the first field that it explains, in one paragraph."""
    text = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
    return "" if _explained(text, _names(kind)) else " ".join(text.split())


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


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


def _lines() -> Iterator[str]:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        yield f"docs/{name}: {len(text.splitlines())} lines"
    if without := missing():
        yield f"{len(without)} keys have no meaning: {', '.join(without)}"


if __name__ == "__main__":
    for line in _lines():
        print(line)
