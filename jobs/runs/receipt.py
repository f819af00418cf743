"""The receipt of a trained generator: a JSON file beside the weights that states what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.maps.edges import EdgeConfig
from files.durable import write_durably
from jobs.runs.folder import CheckpointError

RECEIPT_NAME = "receipt.json"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """State what the weights beside it were made from.

    Nothing here depends on the time of the training nor, on a CPU, on the machine.

    config: every value of the paper's `Config`.
    edges: parameters of the edges that it was trained with, as their manifest states them; None if it read no edges.
    seed: of the training.
    steps: of all phases.
    samples_seen: records read, with repetition.
    world_sizes: number of processes of each segment; it changes weights by rounding only.
    not_repeatable: operations that do not repeat to the bit on a device that it was trained on.
    images: digest of the images' manifest.
    columns: other columns -> digest of the manifest.
    train: every value of `TrainConfig`.
    weights_sha256: digest of the weights' file.
    experiment: digest of parameters, data, code and packages together.
    parameters: network -> number of parameters.
    """

    generator: str
    config: Mapping[str, Any]
    edges: EdgeConfig | None
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
    """Write the receipt. Call this after the weights are written: its presence means that they are complete."""
    content = json.dumps(asdict(receipt), indent=2, sort_keys=True) + "\n"
    write_durably(folder / RECEIPT_NAME, content.encode())


def read_receipt(folder: Path) -> Receipt:
    """Read the receipt of a folder. Raises CheckpointError if it is missing or unreadable."""
    path = folder / RECEIPT_NAME
    try:
        values = json.loads(path.read_text())
        tuples = {name: tuple(values[name]) for name in ("world_sizes", "not_repeatable")}
        edges = None if values["edges"] is None else EdgeConfig(**values["edges"])
        return Receipt(**{**values, **tuples, "edges": edges})
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; run: dvc repro") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a receipt ({error}); run: dvc repro") from error
