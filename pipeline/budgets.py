"""How many images a training will see. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any


def planned_images(config: Any, global_batch: int | None = None) -> int:
    """Return how many images a training sees, with repetition: the steps of all phases times the batch size.

    config: a generator's `Config`.
    global_batch: `train.global_batch`.
    """
    return sum(phase_steps(config).values()) * (global_batch or config.batch_size)


def phase_steps(config: Any) -> dict[str, int]:
    """Return the fields of a generator's `Config` that count the steps of its phases."""
    steps = {key: value for key, value in asdict(config).items() if key == "steps" or key.endswith("_steps")}
    steps.pop("halving_steps", None)
    return steps


def find_unequal_budgets(generators: Mapping[str, Any], global_batch: int | None = None) -> str | None:
    """Return what is wrong with the budgets on the common track, or None.

    Budgets are equal if they differ by less than a batch, since a training ends after a whole step.

    generators: name -> its `Config`.
    global_batch: `train.global_batch`.
    """
    images = {name: planned_images(config, global_batch) for name, config in generators.items()}
    if are_equal(images.values(), global_batch or max(config.batch_size for config in generators.values())):
        return None
    return (
        f"report.track is common, but the generators see unequal numbers of images: {list_images(images)}; set their "
        "steps or batch_size so that steps * batch_size is equal, or set report.track to null"
    )


def are_equal(images: Collection[int], batch_size: int) -> bool:
    """Tell whether budgets differ by less than a batch."""
    return max(images) - min(images) < batch_size


def list_images(images: Mapping[str, int]) -> str:
    """Return such as "csa 12,800, spl 16,000"."""
    return ", ".join(f"{name} {count:,}" for name, count in images.items())
