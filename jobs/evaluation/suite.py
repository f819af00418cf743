"""The frozen suite: its identity, and the images of the gallery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from datasets.shards.column import Column
from files.durable import file_digest
from files.seeds import derive_seed
from jobs.evaluation.settings import FEATURE_WEIGHTS, EvaluateConfig

_METRICS = Path(__file__).parent / "metrics"


def suite_id(images: Column, masks: Column, config: EvaluateConfig) -> str:
    """Compute the suite's identity.

    Returns the SHA-256 over the digests of images, masks, every file of metric code and the feature weights.
    """
    weights = {name: getattr(config, name) for name in FEATURE_WEIGHTS}
    digests = {
        "images": images.manifest.digest,
        "masks": masks.manifest.digest,
        "metrics": {path.name: file_digest(path) for path in _METRICS.glob("*.py")},
        "weights": {name: of_file.sha256 for name, of_file in weights.items() if of_file is not None},
    }
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def gallery_keys(keys: Sequence[str], count: int) -> frozenset[str]:
    """Choose the images of the gallery by a hash of their keys, so that adding images hardly changes the choice.

    keys: all keys of the suite.
    count: how many to choose, at most.
    """
    return frozenset(sorted(keys, key=lambda key: derive_seed("gallery", key))[:count])
