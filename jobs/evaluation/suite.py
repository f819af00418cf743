"""The frozen suite: its description, whose digest is its identity, its images, and those of the gallery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.shards.column import Column
from files.durable import file_digest
from files.errors import UserError
from files.seeds import derive_seed
from jobs.evaluation.catalogue import METRICS
from jobs.evaluation.results import Summary
from jobs.evaluation.settings import FEATURE_WEIGHTS, EvaluateConfig

_METRICS = Path(__file__).parent / "metrics"
_COMPOSITING = "8 bits: the output, rounded half up, in the hole; the image elsewhere"


class SuiteError(UserError):
    """Results of different suites must not share a table; the message names both."""


def describe_suite(
    images: Column, masks: Column, config: EvaluateConfig, smallest_sha256: int | None = None
) -> dict[str, Any]:
    """Return everything that decides what the numbers mean, as plain data.

    images, masks: the two columns.
    config: names the feature weights.
    smallest_sha256: see `select_records`.
    """
    weights = {name: getattr(config, name) for name in FEATURE_WEIGHTS}
    return {
        "dataset": images.manifest.dataset,
        "split": images.manifest.split,
        "keys": "all" if smallest_sha256 is None else {"smallest_sha256": smallest_sha256},
        "images": {"manifest": images.manifest.digest, **images.manifest.parameters},
        "masks": {"manifest": masks.manifest.digest, **masks.manifest.parameters},
        "compositing": _COMPOSITING,
        "metrics": [metric.name for metric in METRICS],
        "metric_code": {path.name: file_digest(path) for path in _METRICS.glob("*.py")},
        "weights": {name: of_file.sha256 for name, of_file in weights.items() if of_file is not None},
    }


def suite_text(description: Mapping[str, Any]) -> bytes:
    """Return the file of a suite, whose digest is its identity."""
    return (json.dumps(description, indent=2, sort_keys=True) + "\n").encode()


def suite_id(images: Column, masks: Column, config: EvaluateConfig, smallest_sha256: int | None = None) -> str:
    """Compute the suite's identity: the SHA-256 of its file. The arguments are those of `describe_suite`."""
    return hashlib.sha256(suite_text(describe_suite(images, masks, config, smallest_sha256))).hexdigest()


def check_one_suite(summaries: Mapping[str, Summary]) -> None:
    """Raise SuiteError unless all results are of one suite. summaries: by the name of the evaluation."""
    first, *others = summaries
    for other in others:
        if summaries[other].suite != summaries[first].suite:
            raise SuiteError(
                f"{first} was evaluated on suite {summaries[first].suite}, {other} on {summaries[other].suite}: "
                "their numbers cannot be compared; run: dvc repro"
            )


def select_records(images: Column, smallest_sha256: int | None) -> np.ndarray:
    """Return the numbers of the suite's records, in order.

    smallest_sha256: number of images, those whose source's file name has the smallest SHA-256; None = all.
    Raises UserError if there are fewer images.
    """
    count = sum(images.shard_sizes)
    if smallest_sha256 is None:
        return np.arange(count)
    if smallest_sha256 > count:
        raise UserError(f"{images.folder} has {count:,} images, and the suite needs {smallest_sha256:,} of them")
    names = (Path(source).name for source in images.table["source"].to_pylist())
    digests = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    return np.sort(np.argsort(digests, kind="stable")[:smallest_sha256])


def gallery_keys(keys: Sequence[str], count: int) -> frozenset[str]:
    """Choose the images of the gallery by a hash of their keys, so that adding images hardly changes the choice.

    keys: all keys of the suite.
    count: how many to choose, at most.
    """
    return frozenset(sorted(keys, key=lambda key: derive_seed("gallery", key))[:count])
