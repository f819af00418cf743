import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.photographs import write_split
from files.durable import file_digest
from jobs.generators import card, names
from jobs.generators.build import build_recipe
from jobs.runs.events import losses_by_step
from jobs.training.loop import TrainingError, TrainJob, train
from jobs.training.settings import TrainConfig
from tests.jobs.training.trainings import PLAIN_WORKER


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: str(path) for name, path in write_split(tmp_path_factory.mktemp("s"), 12, per_shard=4).items()}


def job(folders, storage, generator="context_encoder", **changes):
    config = dataclasses.replace(card(generator).Config.tiny(), **changes)
    storage.mkdir(parents=True, exist_ok=True)
    return TrainJob(
        generator=generator,
        config=config,
        train=TrainConfig(checkpoint_steps=3, log_steps=2, sample_steps=100),
        seed=4,
        folders=folders,
        storage=str(storage),
        **PLAIN_WORKER,
    )


def digest(job):
    train({"job": job})
    return file_digest(Path(job.storage) / "weights.safetensors")


@pytest.mark.parametrize("generator", names())
def test_equal_jobs_give_equal_weights(folders, tmp_path, generator):
    one, other = (job(folders, tmp_path / name, generator) for name in "ab")
    assert digest(one) == digest(other)
    assert losses_by_step(tmp_path / "a" / "events.jsonl") == losses_by_step(tmp_path / "b" / "events.jsonl")


def test_a_storage_that_rank_0_does_not_see_ends_it(folders, tmp_path):
    unseen = dataclasses.replace(job(folders, tmp_path / "seen"), storage=str(tmp_path / "unseen"))
    with pytest.raises(TrainingError, match=r"unseen is not there on .*; cluster.storage must be a folder that"):
        train({"job": unseen})
    assert not (tmp_path / "unseen").exists()


def test_initial_weights_depend_on_the_seed_alone():
    config = card("context_encoder").Config.tiny()
    torch.manual_seed(5)
    one = build_recipe("context_encoder", config, 1)
    after = torch.rand(1)
    other, third = build_recipe("context_encoder", config, 1), build_recipe("context_encoder", config, 2)
    weights = [next(r.networks["generator"].parameters()) for r in (one, other, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))  # torch's global generator is unchanged


def test_a_loss_that_is_not_finite_stops_with_its_name(folders, tmp_path):
    with pytest.raises(TrainingError, match=r"step \d+ of phase joint: .* (is|not)"):
        train({"job": job(folders, tmp_path, steps=30, learning_rate=1e30)})


def moved(job):
    """Return the names of the parameters and buffers that a training changes."""
    before = {f"{n}/{k}": v.clone() for n, net in build_recipe(job.generator, job.config, job.seed).networks.items()
              for k, v in net.state_dict().items()}  # fmt: skip
    train({"job": job})
    after = load_file(Path(job.storage) / "weights.safetensors")
    assert after.keys() <= before.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_an_update_that_is_not_due_moves_nothing(folders, tmp_path):
    shared = {"pretrain_steps": 0, "num_critic": 3}
    two = moved(job(folders, tmp_path / "two", "deepfill_v1", steps=2, **shared))
    assert {name.split("/")[0] for name in two} == {"global_d", "local_d"}
    three = moved(job(folders, tmp_path / "three", "deepfill_v1", steps=3, **shared))
    assert {name.split("/")[0] for name in three} == {"global_d", "local_d", "generator"}


def test_what_a_phase_freezes_stays(folders, tmp_path):
    names = moved(job(folders, tmp_path, "partial_conv", train_steps=0, finetune_steps=2))
    norms = {name for name in names if ".norm." in name}
    assert {name.split("/")[1].split(".")[0] for name in norms} == {"decoder"}
    assert any(name.startswith("generator/encoder.") for name in names - norms)


def test_the_schedule_of_a_phase_sets_the_rate_of_each_step(folders, tmp_path):
    """CSA's rate is 0 in its last epoch."""
    epochs = {"steps_per_epoch": 1, "constant_epochs": 0}
    assert not moved(job(folders, tmp_path / "one", "csa", steps=1, **epochs))
    assert moved(job(folders, tmp_path / "two", "csa", steps=2, **epochs))
