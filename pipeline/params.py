"""The whole of params.yaml, typed: the only reader of that file.

YAML is read by the parser that DVC uses, so that every value means the same to both; then every key and type is
checked before anything runs. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from datasets.ingest import IngestConfig
from datasets.maps.edges import EdgeConfig
from datasets.maps.semantics import SemanticsConfig
from datasets.sources import SourceConfig, open_source
from files.errors import UserError
from files.objects import StoreConfig
from jobs.cluster.settings import ClusterConfig
from jobs.evaluation.settings import EvaluateConfig
from jobs.generators import card
from jobs.training.settings import TrainConfig
from masks.config import MaskConfig

PARAMS_PATH = Path("params.yaml")


class ParamsError(UserError):
    """params.yaml says something that no stage understands; the message names the key and the nearest valid one."""


@dataclass(frozen=True, kw_only=True)
class DatasetParams(SourceConfig):
    """A data set and, as `watch`, the file or folder whose change makes the ingested shards stale."""

    watch: str = "requirements.lock"


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """The frozen evaluation suite: which split's images, and which family of masks fills every hole-ratio bin."""

    split: str = "val"
    masks: MaskConfig = field(default_factory=MaskConfig)


@dataclass(frozen=True, kw_only=True)
class Params:
    """Everything a run depends on.

    edges: name of a column of shards -> how its edges are found. generators: a paper's short name -> its `Config`,
        which params.yaml gives as a `preset` ("paper" if there is none) and the values that differ from it.
    """

    seed: int
    dataset: DatasetParams
    ingest: IngestConfig
    edges: Mapping[str, EdgeConfig]
    semantics: SemanticsConfig
    suite: SuiteConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    cluster: ClusterConfig
    generators: Mapping[str, Any]
    store: StoreConfig = field(default_factory=StoreConfig)

    def to_dict(self) -> dict[str, Any]:
        """All values, defaults included, as plain data."""
        return asdict(dataclasses.replace(self, generators={})) | {
            "generators": {name: asdict(config) for name, config in self.generators.items()}
        }


def read_params(path: Path = PARAMS_PATH) -> Params:
    """Read and check all parameters.

    Raises ParamsError, in one line, for a file that is missing or no YAML, and for any key or value that is wrong.
    """
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run the command from the root of the checkout") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} must be a mapping with keys {', '.join(_keys(Params))}")
    params = _check(Params, tree, path.name)
    try:
        open_source(params.dataset)
    except ValueError as error:
        raise ParamsError(f"{path.name}: dataset.name: {error}") from None
    _check_edges(params, path.name)
    configs = {name: _generator(name, values, path.name) for name, values in params.generators.items()}
    if not configs:
        raise ParamsError(f"{path.name}: generators is empty; name at least one, such as `edge_connect: {{}}`")
    return dataclasses.replace(params, generators=configs)


def _check_edges(params: Params, where: str) -> None:
    taken = {"image", "mask", "semantics"}
    for name in params.edges:
        if not re.fullmatch(r"[a-z0-9_]+", name) or name in taken:
            raise ParamsError(
                f"{where}: edges has the key {name!r}; a column's name is made of a-z, 0-9 and _, and is none of "
                f"{', '.join(sorted(taken))}"
            )
    if params.train.edges not in params.edges:
        raise ParamsError(
            f"{where}: train.edges is {params.train.edges!r}, which is no column of edges; there are "
            f"{', '.join(params.edges)}"
        )


def _generator(name: str, values: Any, where: str) -> Any:
    if not re.fullmatch(r"[a-z0-9_]+", str(name)):
        raise ParamsError(f"{where}: generators has the key {name!r}; names are made of a-z, 0-9 and _")
    try:
        config = card(name).Config
    except ValueError as error:
        raise ParamsError(f"{where}: generators: {error}") from None
    where = f"{where}: generators.{name}"
    if isinstance(values, dict) and "preset" in values:
        values = _preset(config, values["preset"], where) | {key: v for key, v in values.items() if key != "preset"}
    return _check(config, values or {}, where, within=True)


def _preset(config: type, preset: Any, where: str) -> dict[str, Any]:
    """Return the values of a paper's preset: "paper", the defaults of its `Config`, or "demo"."""
    presets = {"paper": config, "demo": config.demo}
    if not isinstance(preset, str) or preset not in presets:
        raise ParamsError(f"{where}.preset: must be one of {', '.join(presets)}, got {preset!r}")
    return asdict(presets[preset]())


def _check(target: type, tree: Any, where: str, *, within: bool = False) -> Any:
    """Validate plain data against a dataclass, strictly; JSON on the way, since its lists may become tuples."""
    try:
        return TypeAdapter(target).validate_json(json.dumps(tree), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        name = ".".join(path)
        prefix = f"{where}.{name}" if within and name else f"{where}: {name}" if name else where
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise ParamsError(f"{prefix} is not a key; {_nearest(target, path)}") from None
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise ParamsError(f"{prefix} is missing; add it") from None
        message = first["msg"].removeprefix("Value error, ")
        value = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise ParamsError(f"{prefix}: {message[0].lower() + message[1:]}{value}") from None
    except TypeError as error:  # json.dumps: dates and the like
        named = ".".join(_not_plain(tree))
        prefix = f"{where}.{named}" if within else f"{where}: {named}"
        raise ParamsError(f"{prefix} is no number, text, true, false, list or mapping; put texts in quotes") from error


def _not_plain(tree: Any) -> list[str]:
    """The path of the first value that YAML has and JSON has not, such as a date."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in parts:
        if isinstance(value, dict | list):
            if found := _not_plain(value):
                return [str(name), *found]
        elif not isinstance(value, str | int | float | None):
            return [str(name)]
    return []


def _nearest(target: type, path: list[str]) -> str:
    """The hint for an unknown key: the nearest key where it stands, or all of them."""
    for part in path[:-1]:
        names_any = typing.get_origin(target) is Mapping
        target = typing.get_args(target)[1] if names_any else _types(target).get(part, target)
    keys = list(_keys(target))
    near = difflib.get_close_matches(path[-1], keys, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(keys)}"


def _types(target: type) -> dict[str, Any]:
    return typing.get_type_hints(target) if dataclasses.is_dataclass(target) else {}


def _keys(target: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(target)) if dataclasses.is_dataclass(target) else ()
