"""A global batch in place of each paper's own, and the learning rates that go with it."""

import pytest

from jobs.checks.footprint import footprint
from jobs.generators import card
from jobs.training.global_batch import learning_rate_factor, with_global_batch
from jobs.training.learning_rates import LearningRates
from jobs.training.settings import TrainConfig
from tests.jobs.generators.steps import build_tiny


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 16.0), ("sqrt", 4.0)])
def test_a_batch_sixteen_times_the_papers_changes_all_learning_rates_by_the_rule(rule, factor):
    papers = build_tiny("edge_connect")
    config = TrainConfig(global_batch=16 * papers.batch_size, global_batch_rule=rule)
    recipe = with_global_batch(papers, config)
    assert recipe.batch_size == 16 * papers.batch_size
    assert recipe.steps == papers.steps
    before = LearningRates(papers, "none")
    after = LearningRates(recipe, "none", learning_rate_factor(papers.batch_size, config))
    for name in recipe.optimizers:
        for step in range(papers.steps):
            assert after.at(name, step) == pytest.approx(factor * before.at(name, step))
    assert footprint("edge_connect", card("edge_connect").Config.tiny(), config).batch_size == recipe.batch_size


def test_a_global_batch_must_name_its_rule():
    with pytest.raises(ValueError, match="global_batch needs global_batch_rule"):
        TrainConfig(global_batch=64)
    with pytest.raises(ValueError, match="global_batch_rule has no meaning without global_batch"):
        TrainConfig(global_batch_rule="linear")
