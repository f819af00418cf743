"""Write the JSON schema of params.yaml, by which editors complete keys, show what they mean and mark mistakes."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, create_model
from pydantic.json_schema import GenerateJsonSchema

from files.checkout import ROOT
from files.durable import write_durably
from jobs.generators import card, names
from pipeline.params import Params

SCHEMA_PATH = Path("conf") / "params.schema.json"
_ENTRY = re.compile(r"(?:^|(?<=\. ))(?P<fields>[\w*]+(?:, [\w*]+)*)(?: \([^)]*\))?: ", re.MULTILINE)
_FIELD = re.compile(r"    (?P<name>\w+): [^#]* = [^#]*?(?:  # (?P<comment>.*))?")
_OWN_LINE = re.compile(r"    # (?P<text>.*)")


def make_schema() -> dict[str, Any]:
    """Return the schema of params.yaml, with a description at every key that has one."""
    generators = create_model(
        "Generators",
        __config__=ConfigDict(extra="forbid"),
        **{name: (card(name).Config | None, Field(None, description=card(name).PAPER)) for name in names()},
    )
    kinds = {"params": TypeAdapter(Params), "generators": TypeAdapter(generators)}
    parts, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in kinds.items()], schema_generator=_DescribedSchema
    )
    schema = shared["$defs"].pop("Params")
    description = schema["properties"]["generators"]["description"]
    schema["properties"]["generators"] = {**parts["generators", "validation"], "description": description}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": shared["$defs"]}


def field_descriptions(config: type) -> dict[str, str]:
    """Return field -> description, from the docstrings of a dataclass and of its bases.

    An entry of a docstring is `field: text`, `field, field: text` or, for many fields, `*_suffix: text`. It begins at
    the start of a line or sentence and continues to the next entry. A field without an entry has the comment of
    its declaration.
    """
    descriptions: dict[str, str] = {}
    fields = [field.name for field in dataclasses.fields(config)]
    for base in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        descriptions |= {name: text for name, text in _comments(base).items() if name in fields}
        for matched, text in _entries(base, fields):
            descriptions |= dict.fromkeys(matched, text)
    return descriptions


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


def _comments(config: type) -> dict[str, str]:
    """Return field -> the comment behind its declaration, else the nearest one above it in the same block of lines."""
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


class _DescribedSchema(GenerateJsonSchema):
    """Make dataclasses refuse unknown keys, as the reader of params.yaml does, and describe their fields."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """Return the JSON schema of one dataclass. schema: pydantic's own description of it."""
        config = schema["cls"]
        result = super().dataclass_schema(schema)
        result["additionalProperties"] = False
        result["description"] = inspect.cleandoc(config.__doc__).split("\n\n")[0].replace("\n", " ")
        descriptions = field_descriptions(config)
        for name, value in result["properties"].items():
            if name in descriptions:
                value["description"] = descriptions[name]
            value.pop("title", None)
        return result


VERB = {
    "help": "write conf/params.schema.json, by which editors complete and check params.yaml",
    "example": "schema",
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the schema and print its path."""
    write_durably(ROOT / SCHEMA_PATH, render().encode())
    print(SCHEMA_PATH)
    return 0


def render() -> str:
    """Return the text of the schema's file."""
    return json.dumps(make_schema(), indent=2) + "\n"
