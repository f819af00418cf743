"""Compiled networks of every generator: no breaks of the graph, and the losses and weights of eager ones."""

import dataclasses
import functools
from unittest import mock

import pytest
import torch
from torch._dynamo.utils import counters

from benchmarks.batches import make_batch
from jobs.checks.footprint import step_kinds
from jobs.generators import card, names
from jobs.generators.build import build_recipe
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep

QUICK = ("context_encoder",)


def train(name, is_compiled):
    """Return the recipe and the losses of two steps of each kind, with graphs captured and no code generated."""
    config = card(name).Config.tiny()
    left_out = {key: 1.0 for key, value in vars(config).items() if key.endswith("_weight") and value == 0}
    if name == "csa":
        left_out["width"] = 64  # its consistency loss compares as many channels as VGG has
    config = dataclasses.replace(config, **left_out)
    side = getattr(config, "image_size", 64)
    losses = {}
    with mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="aot_eager")):
        recipe = build_recipe(name, config, seed=1)
        batch = make_batch((side, side), recipe.columns, 2)
        if batch.semantics is not None:
            batch = dataclasses.replace(batch, semantics=batch.semantics % 2)  # saca's tiny form has few regions
        step = TrainingStep(recipe, TrainConfig(compile=is_compiled), torch.device("cpu"))
        for phase in (phase for phase in recipe.phases if phase.steps):
            step.start(phase)
            phase.set_learning_rates(recipe.optimizers, 0)
            for kind in step_kinds(phase):
                for number in range(2):
                    terms = step(kind.first, batch)
                    losses |= {f"{phase.name}/{term} {number}": value for term, value in terms.items()}
    return recipe, losses


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in names()])
def test_compiled_networks_train_as_eager_ones_do(name):
    eager, expected = train(name, False)
    assert all(network._compiled_call_impl is None for network in eager.networks.values())
    torch._dynamo.reset()
    counters.clear()
    compiled, found = train(name, True)
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"], counters["graph_break"]
    for key, network in compiled.networks.items():
        assert (network._compiled_call_impl is None) == (key in compiled.differentiated_twice), key
    for network in compiled.feature_networks:
        assert hasattr(network._compute, "_torchdynamo_orig_callable")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    torch._dynamo.reset()
