"""Build the JSON schema of params.yaml, by which editors complete keys, show what they mean and mark mistakes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, create_model
from pydantic.json_schema import GenerateJsonSchema

from datasets.sources import SOURCES, SourceConfig
from jobs.generators import PRESETS, card, names
from pipeline.meanings import field_descriptions, is_generator
from pipeline.params import Params

SCHEMA_PATH = Path("conf") / "params.schema.json"


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
    schema["properties"]["dataset"] = {
        "description": schema["properties"]["dataset"]["description"],
        "anyOf": [_dataset_schema(name, source.Config) for name, source in SOURCES.items()],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": shared["$defs"]}


def _dataset_schema(name: str, config: type[SourceConfig]) -> dict[str, Any]:
    """Return the schema of the block `dataset` for one data set, which decides the keys."""
    schema = TypeAdapter(config).json_schema(schema_generator=_DescribedSchema)
    schema["properties"]["name"]["const"] = name
    return schema


def render() -> str:
    """Return the text of the schema's file."""
    return json.dumps(make_schema(), indent=2) + "\n"


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
        if is_generator(config):
            result["properties"]["preset"] = {
                "enum": list(PRESETS),
                "description": "the values that the keys beside it replace; paper if there is none",
            }
        return result
