"""Learning rates by step: the recipe's own, and the decay of all of them."""

import dataclasses
import math

import pytest

from jobs.recipe.contract import Phase, Update
from jobs.training.learning_rates import LearningRates
from tests.jobs.training.toy import Toy, build_toy


def nothing(networks, batch, outputs):
    return {}


def phase(name, steps, trained, **rates):
    return Phase(name=name, steps=steps, updates=(Update(networks=trained, terms=nothing),), learning_rates=rates)


@pytest.fixture
def recipe():
    """A recipe of a first phase of both networks, one that is left out, and a last one of the generator alone."""
    both, one = ("generator_d", "generator"), ("generator",)
    phases = (
        phase("first", 4, both, generator=lambda done: 1.0 + done),
        phase("left_out", 0, both, generator=100.0, generator_d=100.0),
        phase("last", 4, one, generator=0.5),
    )
    return dataclasses.replace(build_toy("toy", Toy(), 1), phases=phases)


def rates_of(recipe, decay, network):
    rates, optimizer = LearningRates(recipe, decay), recipe.optimizers[network]
    seen = []
    for step in range(8):
        rates.set(step)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_without_a_decay_they_are_the_recipe_s(recipe):
    assert rates_of(recipe, "none", "generator") == [1.0, 2.0, 3.0, 4.0, 0.5, 0.5, 0.5, 0.5]
    assert rates_of(recipe, "none", "generator_d") == [2e-4] * 8


def test_a_rate_that_no_phase_sets_again_stays_the_last_one(recipe):
    last = dataclasses.replace(recipe.phases[-1], learning_rates={})
    recipe = dataclasses.replace(recipe, phases=(*recipe.phases[:-1], last))
    assert rates_of(recipe, "none", "generator")[4:] == [4.0] * 4


def test_a_decay_runs_over_the_steps_that_train_the_network(recipe):
    whole, half = [step / 8 for step in range(8)], [min(step, 4) / 4 for step in range(8)]
    own = rates_of(recipe, "none", "generator")
    cosine = [rate * (1 + math.cos(math.pi * done)) / 2 for rate, done in zip(own, whole, strict=True)]
    assert rates_of(recipe, "cosine", "generator") == pytest.approx(cosine)
    assert rates_of(recipe, "linear", "generator_d") == pytest.approx([2e-4 * (1 - done) for done in half])


def test_they_do_not_depend_on_the_steps_before(recipe):
    rates = LearningRates(recipe, "cosine")
    expected = [rates.at("generator", step) for step in range(8)]
    for group in recipe.optimizers["generator"].param_groups:
        group["lr"] = 77.0  # as a checkpoint may have left it
    assert rates_of(recipe, "cosine", "generator") == expected
