"""Read params.yaml into typed parameters. Nothing else reads that file.

The YAML parser is the one that DVC uses, so that every value means the same to both. Every key and type is checked
before anything runs. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SkipValidation, TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from datasets.ingest import IngestConfig
from datasets.maps.edges import EdgeConfig
from datasets.maps.semantics import SemanticsConfig
from datasets.sources import SourceConfig, named
from files.errors import UserError
from files.nearest import suggest
from files.objects import StoreConfig
from jobs.cluster.settings import ClusterConfig
from jobs.evaluation.settings import FEATURE_WEIGHTS, EvaluateConfig
from jobs.generators import PRESETS, card, preset_config
from jobs.report.settings import ReportConfig
from jobs.training.settings import TrainConfig
from masks.config import MaskConfig
from pipeline.budgets import find_unequal_budgets, phase_steps
from pipeline.lineage.settings import PromoteConfig
from pipeline.ranges import find_problem
from pipeline.row_names import find_wrong_row
from pipeline.texts import find_wrong_texts

PARAMS_PATH = Path("params.yaml")


class ParamsError(UserError):
    """A key or value of params.yaml is wrong; the message names it, and the nearest valid key."""


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """The frozen images and masks of evaluation.

    split: the split whose images are evaluated.
    masks: the family of masks; every hole-ratio bin has a mask for every image.
    """

    split: str = "val"
    masks: MaskConfig = field(default_factory=MaskConfig)


@dataclass(frozen=True, kw_only=True)
class Params:
    """Every parameter of a run.

    seed: of all random choices.
    dataset: the data set that is ingested.
    ingest: how images are stored in shards.
    edges: name of a column of edges -> how its edges are found.
    semantics: source of label maps.
    suite: the frozen images and masks of evaluation.
    train: how every generator is trained.
    evaluate: metrics, baselines and gallery of evaluation.
    cluster: machines and processes that do the work.
    generators: short name of a paper -> its hyperparameters: a `preset` ("paper" if there is none) and the values that
        differ from it. These generators are trained and compared.
    store: object store of the shards, if they are in one.
    report: rules of the comparison.
    suites: more suites that are evaluated, each with results of its own: names of files in conf/suite.
    promote: rules for a registered version to become the champion.
    """

    seed: int
    dataset: SkipValidation[SourceConfig]  # checked by `_dataset` against the data set's own config
    ingest: IngestConfig
    edges: Mapping[str, EdgeConfig]
    semantics: SemanticsConfig
    suite: SuiteConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    cluster: ClusterConfig
    generators: Mapping[str, Any]
    store: StoreConfig = field(default_factory=StoreConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    suites: tuple[str, ...] = ()
    promote: PromoteConfig = field(default_factory=PromoteConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, defaults included, as plain data that `check_tree` accepts.

        The default of `store.cache` is left out: it is in the home folder of the user who reads the data.
        """
        tree = asdict(dataclasses.replace(self, generators={}))
        if self.store.cache == StoreConfig.cache:
            del tree["store"]["cache"]
        return tree | {"generators": {name: asdict(config) for name, config in self.generators.items()}}


def read_params(path: Path = PARAMS_PATH) -> Params:
    """Read and check all parameters.

    Raises ParamsError, in one line, for a file that is missing or not YAML, and for any key or value that is wrong.
    """
    return check_tree(read_tree(path), path.name)


def check_tree(tree: dict[str, Any], where: str) -> Params:
    """Check all parameters.

    tree: the content of params.yaml as plain data.
    where: name of the file, for messages.
    Raises ParamsError, in one line, for any key or value that is wrong.
    """
    for place, problem in find_wrong_texts(tree):
        raise ParamsError(f"{where}: {place} {problem}")
    params = _check(Params, tree, where)
    dataset = _dataset(params.dataset, where)
    _check_edges(params, where)
    configs = {name: _generator(name, values, where) for name, values in params.generators.items()}
    if not configs:
        raise ParamsError(f"{where}: generators is empty; choose some: python -m pipeline configure generators=...")
    params = dataclasses.replace(params, dataset=dataset, generators=configs)
    if problem := find_problem(params) or find_mismatch(params):
        raise ParamsError(f"{where}: {problem}")
    return params


def find_mismatch(params: Params) -> str | None:
    """Return what is wrong with the first value that no later stage could use, or that does not fit another one."""
    if len(set(params.evaluate.baselines)) < len(params.evaluate.baselines):
        return "evaluate.baselines names a baseline twice; name each once"
    for name in params.suites:
        if not _is_name(name):
            return f"suites names {name!r}; a name of a file in conf/suite is made of a-z, 0-9 and _"
    for name in FEATURE_WEIGHTS:
        weights = getattr(params.evaluate, name)
        if weights and not re.fullmatch(r"[0-9a-f]{64}", weights.sha256):
            return f"evaluate.{name}.sha256 must be 64 hexadecimal digits, got {weights.sha256!r}"
    crop, size = params.train.samples.crop, params.ingest.size
    if crop is not None and crop > size and params.ingest.rule != "keep":
        return f"train.samples.crop is {crop}, more than the shorter side of the images, ingest.size, {size}; lower it"
    for name in params.cluster.generator_workers:
        if name not in params.generators:
            known = suggest(name, tuple(params.generators))
            return f"cluster.generator_workers has {name!r}, which generators does not list; {known}"
    for name, config in params.generators.items():
        steps = phase_steps(config)
        if steps and not any(steps.values()):
            return f"generators.{name} has no step to train: {', '.join(steps)} are 0; raise one"
    return find_wrong_row(params.evaluate, params.generators) or (
        find_unequal_budgets(params.generators, params.train.global_batch) if params.report.track == "common" else None
    )


def _dataset(values: Any, where: str) -> SourceConfig:
    """Check the block `dataset` against the config of the data set that it names."""
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str):  # always refused, with the reason
        return _check(SourceConfig, values, f"{where}: dataset", within=True)
    try:
        config = named(name).Config
    except ValueError as error:
        raise ParamsError(f"{where}: dataset.name: {error}") from None
    for key in values:
        if key not in _keys(config):
            raise ParamsError(f"{where}: dataset.{key} is not a key of {name}; {suggest(str(key), _keys(config))}")
    return _check(config, values, f"{where}: dataset", within=True)


def read_tree(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Return the content of params.yaml as plain data, with no key checked.

    Raises ParamsError for a file that is missing or not YAML.
    """
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run the command from the root of the checkout") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} must be a mapping with keys {', '.join(_keys(Params))}")
    return tree


def check_listed(params: Params, generator: str) -> None:
    """Raise ParamsError if params.yaml does not list a generator of this name."""
    if generator not in params.generators:
        raise ParamsError(f"params.yaml: generators has no {generator!r}; it lists {', '.join(params.generators)}")


def _check_edges(params: Params, where: str) -> None:
    reserved = ("image", "mask", "semantics")
    for name in params.edges:
        if not _is_name(name) or name in reserved:
            raise ParamsError(
                f"{where}: edges has the key {name!r}; a column's name is made of a-z, 0-9 and _, and is none of "
                f"{', '.join(reserved)}"
            )
    if params.train.edges not in params.edges:
        raise ParamsError(
            f"{where}: train.edges is {params.train.edges!r}, which is no column of edges; there are "
            f"{', '.join(params.edges)}"
        )


def _is_name(name: Any) -> bool:
    """Tell whether a key may become a path and a word of a command."""
    return re.fullmatch(r"[a-z0-9_]+", str(name)) is not None


def _generator(name: str, values: Any, where: str) -> Any:
    if not _is_name(name):
        raise ParamsError(f"{where}: generators has the key {name!r}; names are made of a-z, 0-9 and _")
    try:
        config = card(name).Config
    except ValueError as error:
        raise ParamsError(f"{where}: generators: {error}") from None
    where = f"{where}: generators.{name}"
    if isinstance(values, dict) and "preset" in values:
        values = _preset(name, values["preset"], where) | {key: v for key, v in values.items() if key != "preset"}
    return _check(config, values or {}, where, within=True)


def _preset(name: str, preset: Any, where: str) -> dict[str, Any]:
    """Return the values of one of the PRESETS of a generator."""
    if preset not in PRESETS:
        raise ParamsError(f"{where}.preset: must be one of {', '.join(PRESETS)}, got {preset!r}")
    return asdict(preset_config(name, preset))


def _check(target: type, tree: Any, where: str, *, within: bool = False) -> Any:
    """Validate plain data strictly against a dataclass and return an instance of it.

    The data goes through JSON, since strict validation turns a list into a tuple only there.

    where: start of every message: a file, or with `within` a key, to which the path of a value is appended.
    """
    try:
        return _adapter(target).validate_json(json.dumps(tree), strict=True, extra="forbid")
    except ValidationError as error:
        raise ParamsError(_describe(error.errors()[0], target, where, within=within)) from None
    except TypeError as error:  # by json.dumps, for dates and the like
        place = _place(where, _not_plain(tree), within=within)
        raise ParamsError(f"{place} is no number, text, true, false, list or mapping; put texts in quotes") from error


@cache
def _adapter(target: type) -> TypeAdapter:
    return TypeAdapter(target)


def _describe(error: Mapping[str, Any], target: type, where: str, *, within: bool) -> str:
    """Return the message for one error of pydantic."""
    path = [str(key) for key in error["loc"]]
    place = _place(where, path, within=within)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place} is not a key; {_nearest(target, path)}"
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{place} is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    value = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{place}: {message[0].lower() + message[1:]}{value}"


def _place(where: str, path: list[str], *, within: bool) -> str:
    """Return the start of a message, such as "params.yaml: ingest.size"."""
    if not path:
        return where
    return f"{where}{'.' if within else ': '}{'.'.join(path)}"


def _not_plain(tree: Any) -> list[str]:
    """Return the path of the first value that YAML has and JSON lacks, such as a date; [] if there is none."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        if isinstance(value, dict | list):
            if path := _not_plain(value):
                return [str(name), *path]
        elif not isinstance(value, str | int | float | None):
            return [str(name)]
    return []


def _nearest(target: type, path: list[str]) -> str:
    """Return the hint for an unknown key: the nearest key beside it, or all keys there."""
    for key in path[:-1]:
        has_free_keys = typing.get_origin(target) is Mapping
        target = typing.get_args(target)[1] if has_free_keys else _types(target).get(key, target)
    return suggest(path[-1], _keys(target))


def _types(target: type) -> dict[str, Any]:
    return typing.get_type_hints(target) if dataclasses.is_dataclass(target) else {}


def _keys(target: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(target)) if dataclasses.is_dataclass(target) else ()
