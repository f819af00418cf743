"""A step taken here is a step of the training loop."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from datasets.plan import derive_seed
from jobs.checkpoints import network_state
from jobs.generators import card
from jobs.recipe import build_recipe
from jobs.samples import TrainingSamples
from jobs.settings import TrainConfig
from jobs.step import TrainingStep
from jobs.training_loop import TrainJob, train
from tests.photographs import write_split


@pytest.mark.parametrize(
    ("name", "changes"), [("edge_connect", {}), ("deepfill_v1", {"pretrain_steps": 1, "num_critic": 2, "steps": 3})]
)
def test_steps_give_the_weights_of_a_training(tmp_path, name, changes):
    folders = write_split(tmp_path / "shards", 8)
    config = dataclasses.replace(card(name).Config.tiny(), **changes)
    job = TrainJob(
        generator=name,
        config=config,
        train=TrainConfig(log_steps=1),
        seed=4,
        folders={column: str(path) for column, path in folders.items()},
        storage=str(tmp_path / "storage"),
    )
    train({"job": job})
    recipe = build_recipe(name, config, 4)
    samples = TrainingSamples({n: Path(folders[n]) for n in ("image", *recipe.columns)}, job.train.samples, 4)
    batches = iter(
        samples.loader(steps=range(recipe.steps), batch_size=recipe.batch_size, rank=0, world_size=1, num_workers=0)
    )
    take_step, done = TrainingStep(recipe, job.train, torch.device("cpu")), 0
    for phase in recipe.phases:
        take_step.start(phase)
        for step in range(phase.steps):
            torch.manual_seed(derive_seed(4, "step", done, 0))
            phase.set_learning_rates(recipe.optimizers, step)
            assert take_step(phase, step, next(batches).to("cpu"))
            done += 1
    trained, stepped = load_file(tmp_path / "storage" / "weights.safetensors"), network_state(recipe.networks)
    assert trained.keys() == stepped.keys()
    assert done == recipe.steps > 2
    assert all(torch.equal(trained[key], stepped[key]) for key in trained)
