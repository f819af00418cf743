"""Read from the sources what each key of params.yaml means."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

UNIONS = (typing.Union, types.UnionType)
_ENTRY = re.compile(r"(?:^|(?<=\. ))(?P<fields>[\w*]+(?:, [\w*]+)*)(?: \([^)]*\))?: ", re.MULTILINE)
_FIELD = re.compile(r"    (?P<name>\w+): [^#]* = [^#]*?(?:  # (?P<comment>.*))?")
_OWN_LINE = re.compile(r"    # (?P<text>.*)")

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
"""Meaning of keys that many generators have, for those whose docstring does not explain them."""


def field_descriptions(config: type) -> dict[str, str]:
    """Return field -> its meaning, or where its default comes from if no docstring explains it.

    config: a dataclass.
    """
    common = {field.name: meaning for field in dataclasses.fields(config) if (meaning := common_meaning(config, field))}
    return comments(config) | common | docstring_entries(config)


def is_generator(config: type) -> bool:
    """Return whether a dataclass is the `Config` of a generator."""
    return config.__module__.startswith("jobs.generators.")


def common_meaning(config: type, field: dataclasses.Field) -> str:
    """Return the meaning that COMMON gives to a field of a generator, or ""."""
    if not is_generator(config):
        return ""
    return next((text for pattern, text in COMMON.items() if fnmatch.fnmatchcase(field.name, pattern)), "")


def docstring_entries(config: type) -> dict[str, str]:
    """Return field -> description, from the docstrings of a dataclass and of its bases.

    An entry of a docstring is `field: text`, `field, field: text` or, for many fields, `*_suffix: text`. It begins at
    the start of a line or sentence and continues to the next entry.
    """
    descriptions: dict[str, str] = {}
    fields = [field.name for field in dataclasses.fields(config)]
    for base in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        for matched, text in _entries(base, fields):
            descriptions |= dict.fromkeys(matched, text)
    return descriptions


def comments(config: type) -> dict[str, str]:
    """Return field -> the comment behind its declaration, else the nearest one above it in the same block of lines."""
    fields = {field.name for field in dataclasses.fields(config)}
    result: dict[str, str] = {}
    for base in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        result |= {name: text for name, text in _comments(base).items() if name in fields}
    return result


def summary(config: type) -> str:
    """Return the first paragraph of a dataclass's docstring, in one line."""
    return " ".join(inspect.cleandoc(config.__doc__ or "").split("\n\n")[0].split())


def nested_config(hint: Any) -> type | None:
    """Return the dataclass that a field holds: itself, or null, or one per name. None for a plain value."""
    if dataclasses.is_dataclass(hint):
        return hint
    arguments = typing.get_args(hint) if typing.get_origin(hint) in (Mapping, *UNIONS) else ()
    return next((argument for argument in arguments if dataclasses.is_dataclass(argument)), None)


def _entries(config: type, fields: list[str]) -> list[tuple[list[str], str]]:
    """Return the entries of one docstring: the fields that one is about, and its text."""
    entries = []
    for paragraph in inspect.cleandoc(config.__doc__ or "").split("\n\n"):
        begins = [begin for begin in _ENTRY.finditer(paragraph) if _matching(begin["fields"], fields)]
        ends = [*(begin.start() for begin in begins), len(paragraph)][1:]
        for begin, end in zip(begins, ends, strict=True):
            text = " ".join(paragraph[begin.end() : end].split())
            entries.append((_matching(begin["fields"], fields), text))
    return entries


def _matching(patterns: str, fields: list[str]) -> list[str]:
    return [name for name in fields for pattern in patterns.split(", ") if fnmatch.fnmatchcase(name, pattern)]


@functools.cache
def _comments(config: type) -> dict[str, str]:
    comments: dict[str, str] = {}
    latest, is_continued = "", False
    for line in inspect.getsource(config).splitlines():
        field = _FIELD.fullmatch(line)
        comment = _OWN_LINE.fullmatch(line)
        if comment:
            latest = f"{latest} {comment['text']}" if is_continued else comment["text"]
        elif field:
            latest = field["comment"] or latest
            comments[field["name"]] = latest
        else:
            latest = ""
        is_continued = comment is not None
    return {name: comment for name, comment in comments.items() if comment}
