"""A few steps of a tiny generator, measured in a process of its own, and what becomes of one that fails."""

import dataclasses
import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from benchmarks.photographs import write_split
from jobs.checks.apart import ProbeError, run_apart
from jobs.checks.footprint import footprint, step_kinds
from jobs.checks.probe import ProbeJob, peak_bytes, probe
from jobs.generators import card
from jobs.generators.build import build_recipe
from jobs.training.settings import TrainConfig


def job(name="deepfill_v1", **changes):
    values = {"config": card(name).Config.tiny(), "train": TrainConfig(), "seed": 3, "image_size": 64, "seconds": None}
    return ProbeJob(generator=name, **{**values, **changes})


def test_a_probe_measures_every_kind_of_step_of_every_phase():
    config = dataclasses.replace(
        card("deepfill_v1").Config.tiny(), pretrain_steps=2, num_critic=3, steps=8, batch_size=4
    )
    heard = []
    found = run_apart(probe, job(config=config, world_size=2, seconds=1.0), heard.append)
    assert heard == ["pretrain", "adversarial"]
    assert (found.batch_size, found.height, found.width) == (2, 64, 64)
    assert [(phase.name, phase.steps) for phase in found.phases] == [("pretrain", 2), ("adversarial", 8)]
    critic, both = found.phases[1].kinds
    assert (critic.updates, critic.steps) == (("global_d+local_d",), 6)  # of eight steps the third and sixth are due
    assert (both.updates, both.steps) == (("global_d+local_d", "generator"), 2)
    assert all(seconds > 0 for phase in found.phases for kind in phase.kinds for seconds in kind.seconds)
    assert len(critic.seconds) == len(both.seconds)
    assert 50e6 < found.needed_bytes < found.memory_bytes
    assert found.reading_seconds == ()


def test_batches_are_the_shards_where_there_are_any(tmp_path):
    folders = {name: str(path) for name, path in write_split(tmp_path, 12, size=96).items()}
    found = probe(job("edge_connect", folders=folders, seconds=0.5))
    assert (found.height, found.width) == (96, 96)
    assert len(found.reading_seconds) >= 1


def test_a_phase_for_which_no_time_is_left_is_not_probed():
    found = probe(job("edge_connect", seconds=1e-6))
    assert [bool(phase.kinds) for phase in found.phases] == [True, False, False, False]
    assert not found.phases[0].is_warm
    assert [len(kind.seconds) for kind in found.phases[0].kinds] == [1]


def test_a_term_that_is_not_finite_is_named():
    config = dataclasses.replace(card("context_encoder").Config.tiny(), learning_rate=1e30)
    with pytest.raises(ProbeError, match=r"joint/\w+ is (nan|inf|-inf) in the first steps"):
        probe(job("context_encoder", config=config, seconds=5.0))


def refuse(argument, say):
    say("begun")
    raise ValueError(f"{argument} is odd\nand more")


def die(argument, say):
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_fails_in_its_own_process_is_told_in_one_line():
    heard = []
    with pytest.raises(ProbeError, match=r"^3 is odd$"):
        run_apart(refuse, 3, heard.append)
    assert heard == ["begun"]
    with pytest.raises(ProbeError, match="exit code -9, as when the system runs out of memory"):
        run_apart(die, None)


def test_the_peak_is_this_process_own_and_not_what_started_it_had():
    """On Linux `ru_maxrss` of a child starts from what its parent has."""
    large = torch.ones(150_000_000)
    ours = psutil.Process().memory_info().rss
    code = "import torch; from jobs.checks.probe import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    theirs = int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert theirs < ours
    assert 4 * large.numel() < ours <= peak_bytes(torch.device("cpu"))


def test_kinds_of_steps_are_those_that_are_taken():
    """Against going through all steps, for phases that end within a cycle and beyond."""
    recipe = build_recipe("deepfill_v1", card("deepfill_v1").Config.tiny(), 0)
    for steps in range(1, 14):
        for every in [(1, 5), (2, 3), (4, 6)]:
            updates = tuple(
                dataclasses.replace(update, every=n) for update, n in zip(recipe.phases[-1].updates, every, strict=True)
            )
            phase = dataclasses.replace(recipe.phases[-1], steps=steps, updates=updates)
            slow = [phase.due(step) for step in range(steps)]
            kinds = step_kinds(phase)
            assert {kind.updates: kind.steps for kind in kinds} == {due: slow.count(due) for due in slow}
            assert all(slow.index(kind.updates) == kind.first for kind in kinds)


def test_gradient_bytes_are_those_of_the_networks_that_steps_train():
    """A frozen part of a network, as the refinement while the coarse part is trained alone, has none."""
    config = dataclasses.replace(card("deepfill_v1").Config.tiny(), pretrain_steps=2, num_critic=2, steps=5)
    pretrain, adversarial = footprint("deepfill_v1", config).phases
    networks = build_recipe("deepfill_v1", config, 0).networks
    generator, refinement, *critics = (
        4 * sum(p.numel() for p in network.parameters())
        for network in (
            networks["generator"], networks["generator"].refinement, networks["global_d"], networks["local_d"]
        )
    )  # fmt: skip
    assert pretrain.gradient_bytes == generator - refinement
    assert adversarial.gradient_bytes == round(sum(critics) + 2 / 5 * generator)  # due in two of five steps
