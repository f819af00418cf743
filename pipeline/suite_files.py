"""The suites of conf/suite: text files that say which images are evaluated with which masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from datasets.sources import SOURCES
from files.checkout import ROOT
from files.errors import UserError
from files.nearest import suggest
from jobs.evaluation.settings import FEATURE_WEIGHTS
from masks.config import MaskConfig
from pipeline.params import Params
from pipeline.suite_masks import RATIO_BINS, Ranges

_FOLDER = ROOT / "conf" / "suite"


class SuiteFileError(UserError):
    """A suite of conf/suite is missing, wrong, or not of the images of params.yaml; the message says which."""


@dataclass(frozen=True, kw_only=True)
class SuiteFile:
    """One suite as its file declares it.

    dataset: name of the data set.
    options: settings of the data set that decide its splits, such as {split_list: lama}.
    split: whose images are evaluated.
    smallest_sha256: number of images, those whose file name has the smallest SHA-256; None = all.
    images: number of images that the split must have; None = any.
    size, rule: of `ingest`, how the images are fitted.
    masks: the family of masks.
    bins: whether each image has a mask of each hole-ratio bin, or one mask of any ratio, which has the kind's name.
    seed: of the masks.
    weights: begin of the SHA-256 of files of feature weights, in hex, as in the names of the published files. Only
        these files may be configured.
    """

    dataset: str
    split: str
    size: int
    rule: str
    masks: MaskConfig
    bins: bool
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    smallest_sha256: int | None = None
    images: int | None = None
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranges(self) -> Ranges:
        """The masks of each image."""
        return RATIO_BINS if self.bins else {self.masks.kind: None}


def list_suites() -> list[str]:
    """Return the names of all suites."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_suite(name: str) -> SuiteFile:
    """Read conf/suite/<name>.yaml. Raises SuiteFileError for a file that is missing or wrong."""
    path = _FOLDER / f"{name}.yaml"
    if name not in list_suites():
        raise SuiteFileError(f"conf/suite has no {name}.yaml; {suggest(name, list_suites())}")
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        suite = TypeAdapter(SuiteFile).validate_python(tree)
    except (YAMLError, ValidationError) as error:
        raise SuiteFileError(f"conf/suite/{name}.yaml: {str(error).splitlines()[-1].strip()}") from error
    if suite.dataset not in SOURCES:
        raise SuiteFileError(
            f"conf/suite/{name}.yaml: {suite.dataset} is no data set; {suggest(suite.dataset, SOURCES)}"
        )
    return suite


def check_suite(name: str, suite: SuiteFile, params: Params) -> None:
    """Raise SuiteFileError unless the images and feature weights of params.yaml are those of a suite."""
    if problems := list(_differences(suite, params)):
        raise SuiteFileError(
            f"suite {name} is of other images than params.yaml: {'; '.join(problems)}; change params.yaml, or take the "
            "suite out of `suites`"
        )


def _differences(suite: SuiteFile, params: Params) -> Iterator[str]:
    pairs = {
        "dataset.name": (params.dataset.name, suite.dataset),
        "ingest.size": (params.ingest.size, suite.size),
        "ingest.rule": (params.ingest.rule, suite.rule),
    }
    pairs |= {f"dataset.{name}": (getattr(params.dataset, name, None), value) for name, value in suite.options.items()}
    yield from (f"{key} is {is_!r}, not {wanted!r}" for key, (is_, wanted) in pairs.items() if is_ != wanted)
    for name in FEATURE_WEIGHTS:
        weights, wanted = getattr(params.evaluate, name), suite.weights.get(name, "")
        if weights is not None and not weights.sha256.startswith(wanted):
            yield f"evaluate.{name} has SHA-256 {weights.sha256}, not {wanted}…"
