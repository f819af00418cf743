"""The receipt of a trained generator: what the weights beside it are, and what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.maps.edges import EdgeConfig
from files.durable import write_durably
from jobs.runs.checkpoints import CheckpointError

WEIGHTS_NAME, RECEIPT_NAME = "weights.safetensors", "receipt.json"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the weights beside it are. Nothing in it depends on when they were trained nor, on a CPU, where.

    config: the paper's `Config`, every value. images: digest of the manifest of the images trained on; columns: the
    same of the other columns. world_sizes: of the groups of processes that trained one after another, which matter by
    rounding only. not_repeatable: operations that have no form that repeats to the bit on a device that it was trained
    on. samples_seen counts records, with repetition. experiment: digest of parameters, data, code and packages
    together.
    """

    generator: str
    config: Mapping[str, Any]
    edges: EdgeConfig
    seed: int
    steps: int
    samples_seen: int
    world_sizes: tuple[int, ...]
    not_repeatable: tuple[str, ...]
    images: str
    columns: Mapping[str, str]
    train: Mapping[str, Any]
    weights_sha256: str
    experiment: str
    parameters: Mapping[str, int]


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write the receipt; call after the weights."""
    content = json.dumps(asdict(receipt), indent=2, sort_keys=True) + "\n"
    write_durably(folder / RECEIPT_NAME, content.encode())


def read_receipt(folder: Path) -> Receipt:
    """The receipt of a folder. Raises CheckpointError when it is missing or unreadable."""
    path = folder / RECEIPT_NAME
    try:
        found = json.loads(path.read_text())
        tuples = {name: tuple(found[name]) for name in ("world_sizes", "not_repeatable")}
        return Receipt(**{**found, **tuples, "edges": EdgeConfig(**found["edges"])})
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; run: dvc repro") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a receipt ({error}); run: dvc repro") from error
