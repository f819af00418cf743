"""Real steps of every generator at its paper's scale, with checkpoints and sample pictures."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.photographs import write_split
from files.durable import file_digest
from jobs.cluster.processes import start_fork_server
from jobs.generators import card, names
from jobs.generators.build import build_recipe
from jobs.runs.events import losses_by_step
from jobs.runs.folder import WEIGHTS_NAME
from jobs.training import loop as training_loop
from jobs.training.loop import TrainJob, train
from jobs.training.settings import TrainConfig
from tests.jobs.training.trainings import FORKS, PLAIN_WORKER

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Side of the images, in pixels -> column -> folder."""
    return {
        side: {name: str(path) for name, path in write_split(tmp_path_factory.mktemp(str(side)), 4, size=side).items()}
        for side in (128, 256)
    }


def paper_config(name):
    """Return the paper's config with the smallest batch, and random feature networks, which need no download."""
    config = card(name).Config()
    has_one_value = name in (
        "neural_patch_synthesis",
        "partial_conv",
    )  # per channel and image, of which batch norm needs two
    own = {"batch_size": 2 if has_one_value else 1, "features": "random", "teacher": "random", "texture_iterations": 1}
    return dataclasses.replace(config, **{key: value for key, value in own.items() if hasattr(config, key)})


def two_steps(job):
    def build(*arguments):
        recipe = build_recipe(*arguments)
        phases = tuple(dataclasses.replace(p, steps=2) for p in recipe.phases if p.steps)
        return dataclasses.replace(recipe, phases=phases)

    training_loop.build_recipe = build
    train({"job": job})


@pytest.mark.parametrize("name", names())
def test_two_steps_of_every_phase_at_the_papers_scale(folders, tmp_path, name):
    config = paper_config(name)
    job = TrainJob(
        generator=name,
        config=config,
        train=TrainConfig(log_steps=1),
        seed=1,
        folders=folders[getattr(config, "image_size", 256)],
        storage=str(tmp_path),
        **PLAIN_WORKER | {"threads": 2},
    )
    start_fork_server()
    process = FORKS.Process(target=two_steps, args=(job,))  # a process of its own, which frees all memory at its end
    process.start()
    process.join(600)
    assert process.exitcode == 0
    assert file_digest(tmp_path / WEIGHTS_NAME)
    phases = [phase.name for phase in build_recipe(name, config, 1).phases if phase.steps]
    losses = losses_by_step(Path(job.storage) / "events.jsonl")
    assert list(losses) == list(range(1, 2 * len(phases) + 1))
    for step, terms in losses.items():
        assert {term.split("/")[0] for term in terms} == {phases[(step - 1) // 2]}
        assert all(abs(value) < float("inf") for value in terms.values())
