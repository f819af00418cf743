"""The frozen suite: its identity, the names of its rows, the images to look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from datasets.shards.column import Column
from files.durable import file_digest
from files.seeds import derive_seed
from jobs.evaluation import metrics


def suite_id(images: Column, masks: Column) -> str:
    """The suite's identity: digests of images and masks, and of the code that composites and scores."""
    parts = {
        "images": images.manifest.digest,
        "masks": masks.manifest.digest,
        "metrics": file_digest(Path(metrics.__file__)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def gallery_keys(keys: Sequence[str], count: int) -> frozenset[str]:
    """The images to look at: a choice by hash, not by taste, that adding other images hardly changes."""
    return frozenset(sorted(keys, key=lambda key: derive_seed("gallery", key))[:count])


def untrained(generator: str) -> str:
    """The row of a generator's weights before the first step."""
    return f"{generator}_untrained"
