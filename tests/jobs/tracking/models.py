"""Tiny trained generators, and their registration."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from datasets.maps.edges import EdgeConfig
from jobs.generators import card
from jobs.generators.build import build_recipe
from jobs.runs.checkpoints import save_weights
from jobs.runs.folder import WEIGHTS_NAME, RunFolder
from jobs.runs.receipt import Receipt, write_receipt
from jobs.tracking.delivery import deliver
from jobs.tracking.training_run import describe_training, stage_trained_model

ABOUT = {"data": {"dataset": "made", "licence": "none"}, "record": b"{}\n", "describe": str, "example_side": 32}


def write_model(folder: Path, generator: str, seed: int = 1, **config: object) -> Receipt:
    """Write the weights and the receipt of an untrained tiny generator."""
    settings = dataclasses.replace(card(generator).Config.tiny(), **config)
    recipe = build_recipe(generator, card(generator).Config.tiny(), seed)
    folder.mkdir(parents=True)
    receipt = Receipt(
        generator=generator, config=dataclasses.asdict(settings), seed=seed, steps=2,
        edges=EdgeConfig() if "edge" in recipe.columns else None,
        samples_seen=4, world_sizes=(1,), not_repeatable=(), images="i" * 64, columns={}, train={}, parameters={},
        experiment=f"e{seed}", weights_sha256=save_weights(folder / WEIGHTS_NAME, recipe.networks),
    )  # fmt: skip
    write_receipt(folder, receipt)
    return receipt


def register(folder: Path, generator: str, seed: int = 1, code: Path | None = None, **config: object) -> str:
    """Register a tiny generator as a training does. Returns the version.

    folder: an empty one.
    code: archive of other code than this process's.
    """
    receipt = write_model(folder / "model", generator, seed, **config)
    run = RunFolder(folder / "run")
    described = {"generator": generator, "identity": f"e{seed}", "parameters": {}, "datasets": []}
    describe_training(run, **described, params_json="{}", packages_lock="0" * 64, changes=())
    if code:
        shutil.copyfile(code, run.code)
    stage_trained_model(run, folder / "model", receipt, **ABOUT)
    version, problem = deliver(run.path)
    assert problem is None
    return version
