"""The preset `small` of every generator: a step of every phase, at the size of scale=small and at 64 pixels."""

import dataclasses

import pytest

from benchmarks.batches import make_batch, visible
from jobs.generators import names, preset_config
from jobs.generators.build import build_recipe, inpaint
from tests.jobs.generators.steps import run_step, start_phase

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", names())
def test_every_phase_of_the_preset_small_takes_a_step(name, size):
    config = preset_config(name, "small")
    if hasattr(config, "image_size"):  # `configure ingest.size=64` sets it, too
        config = dataclasses.replace(config, image_size=size)
    recipe = build_recipe(name, config, 1)
    batch = make_batch((size, size), recipe.columns, num_samples=2)
    for phase in recipe.phases:
        start_phase(recipe, phase)
        terms = run_step(recipe, phase, batch)
        assert terms
        assert all(term.isfinite() for term in terms.values()), terms
    assert inpaint(recipe, visible(batch))["output"].shape == batch.image.shape
